"""A trial of `tune`: a run of the one training loop in an actor of Ray Tune, which is told at every rung how it stands.

The course of the training is that of `finetune` with the same settings: looks at a rung change nothing in it. A trial
keeps its checkpoints in the step's scratch folder under its own name, so that after a kill it goes on from there.
"""

from __future__ import annotations

import functools
import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune as ray_tune

from raypath.components.core.context import Tracking
from raypath.components.core.errors import RaypathError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import load_task
from raypath.components.tracking.run import Track, track
from raypath.components.training import trial_weights as reuse
from raypath.components.training.batches.token_dataset import TokenDataset, load_token_dataset
from raypath.components.training.job import Metrics, TrainingJob
from raypath.components.training.loop.optimizer import groups
from raypath.components.training.loop.trainer import Training
from raypath.components.training.params import FinetuneParams
from raypath.components.tuning.population import adopt, stage
from raypath.components.tuning.search_space import Values


@dataclass(frozen=True)
class TrialConfig:
    """What all trials of a search have in common."""

    folder: Path
    """The base model."""
    metadata: ModelMetadata
    finetune: FinetuneParams
    train: str
    valid: str
    train_rows: int
    """Rows drawn for every trial; 0 takes all."""
    valid_rows: int
    rungs: int
    metric: str | None
    seed: int
    threads: int
    scratch: Path
    tracking: Tracking
    step: str
    selector: dict[str, str]
    """Which nodes trials may run on; {} for any."""
    keep: bool
    """Keep the weights at the end: the course is that of `finetune`."""
    clones: bool
    """Every rung has a checkpoint that other trials can take over."""
    deadline: float
    """The time on the clock at which trials give up."""
    concurrent_trials: int = 1
    """Trials that share a machine's memory, or a GPU's."""


class DeadlineExceeded(Exception):
    """The search's time is over."""


def trial(config: dict[str, Any], trial_config: TrialConfig) -> None:
    """Train with `config["trial"]["values"]`, fields of FinetuneParams, under an MLflow run of its own.

    Reports to Ray Tune at each rung: rung, score (higher is better), figure, metric, metrics, seconds. The end before
    the last one is reported as `over`, with `failed` for an error of ours, which costs no actor; others are raised.
    """
    # A model refers to itself, and few objects hold much memory: the trial before would lie there for many more.
    gc.collect()
    name, values = ray_tune.get_context().get_trial_name(), config["trial"]["values"]
    parent = f"{trial_config.tracking.parent}/{trial_config.step}"
    with track(trial_config.tracking, name=name, kind="trial", params=values, parent=parent) as run:
        try:
            _run(name, values, trial_config, run)
        except DeadlineExceeded:
            ray_tune.report({"score": float("-inf"), "over": True})
        except RaypathError as error:
            run.tags({"raypath.failed": error.what})
            failed = [type(error).__name__, error.what, error.fix]
            ray_tune.report({"score": float("-inf"), "over": True, "failed": failed})


class Trial(Training):
    """A training that stops at rungs, equal shares of its steps, to be judged."""

    def __init__(
        self, job: TrainingJob, trial_config: TrialConfig, name: str, values: Values, run: Track, started: float
    ) -> None:
        # First, since a training looks for its checkpoints when it is made.
        self.clone = adopt(job.scratch, name, values) if trial_config.clones and job.scratch else ""
        super().__init__(job)
        self.trial_config, self.name, self.track = trial_config, name, run
        shares = {-(-self.steps * k // trial_config.rungs): k for k in range(1, trial_config.rungs)}
        self.shares = {step: rung for step, rung in shares.items() if step < self.steps}
        self._since = started
        self._last_validation: tuple[int, Metrics] = (0, {})
        job.on_evaluation = self._evaluated

    def report_rung(self, rung: int, metrics: Metrics, checkpoint: Path | None = None) -> None:
        """Report a rung; Ray Tune may end the trial here."""
        name = self.trial_config.metric or ("log_loss" if "log_loss" in metrics else self.task.metric)
        score = self.task.score(name, metrics)
        seconds = time.perf_counter() - self._since
        result = {"rung": rung, "score": score, "value": metrics[name], "metric": name, "seconds": seconds}
        result["metrics"] = {key: value for key, value in metrics.items() if "/" not in key}
        kept = ray_tune.Checkpoint.from_directory(checkpoint) if checkpoint else None
        ray_tune.report({**result, "clone": self.clone}, checkpoint=kept)
        self.clone, self._since = "", time.perf_counter()

    def _step(self, epoch: int, step: int, rows: Any) -> bool:
        if time.time() > self.trial_config.deadline:
            raise DeadlineExceeded
        return super()._step(epoch, step, rows) or self.progress.step in self.shares

    def _save(self, name: str) -> None:
        """The checkpoint at a rung is written after the look, unless the look is to carry it along."""
        rung = self.shares.get(self.progress.step, 0) if name == "last" else 0
        if rung and not self.trial_config.clones:
            self.report_rung(rung, self._validated())
        super()._save(name)
        if rung and self.trial_config.clones and self.job.scratch:
            self.report_rung(rung, self._validated(), stage(self.job.scratch, self.name))

    def _restore(self) -> None:
        super()._restore()
        if self.trial_config.clones:
            # The optimizer came with the settings of the trial it was cloned from.
            for group, own in zip(self.optimizer.param_groups, groups(self.model, self.params), strict=True):
                group["peak"], group["weight_decay"] = own["peak"], own["weight_decay"]

    def _evaluated(self, step: int, metrics: Metrics) -> None:
        self._last_validation = step, metrics
        self.track.metrics({f"valid/{k}": v for k, v in metrics.items() if "/" not in k}, step)

    def _validated(self) -> Metrics:
        """The metrics on the validation part as the weights are now."""
        step = self.progress.step
        if self._last_validation[0] != step:
            self._evaluated(step, self.validate())
        return self._last_validation[1]


def _run(name: str, values: dict[str, Any], trial_config: TrialConfig, run: Track) -> None:
    started = time.perf_counter()
    folder = trial_config.scratch / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    training = Trial(_job(values, trial_config, folder, run), trial_config, name, values, run, started)
    metrics = reuse.load(folder / "kept", training)
    if metrics is None:
        metrics = training.run()
        # Where memory was short and something was cut, `finetune` may find more of it.
        if trial_config.keep and not training.prepared.memory_plan.summary:
            reuse.keep(folder / "kept", training, metrics)
    training.report_rung(trial_config.rungs, metrics)


def _job(values: dict[str, Any], trial_config: TrialConfig, folder: Path, run: Track) -> TrainingJob:
    params = trial_config.finetune.override(values)
    train = _rows(trial_config.train, len(trial_config.metadata.labels), trial_config.train_rows, trial_config.seed)

    def on_step(step: int, steps: int, metrics: Metrics) -> None:
        run.metrics({f"train/{k}": v for k, v in metrics.items()}, step)

    task: Task = load_task(trial_config.metadata, params.objective).fit(train.targets)
    return TrainingJob(
        task=task,
        folder=trial_config.folder,
        train=train,
        valid=_rows(trial_config.valid, len(trial_config.metadata.labels), trial_config.valid_rows, trial_config.seed),
        params=params,
        seed=trial_config.seed,
        threads=trial_config.threads,
        concurrent_trials=trial_config.concurrent_trials,
        scratch=folder,
        on_step=on_step,
    )


@functools.lru_cache(maxsize=4)
def _rows(folder: str, labels: int, rows: int, seed: int) -> TokenDataset:
    """The same `rows` rows for every trial, drawn at random; 0 takes all. Read once in a process."""
    everything = load_token_dataset(folder, labels)
    if not rows or len(everything) <= rows:
        return everything
    return everything.subset(np.sort(np.random.default_rng(seed).permutation(len(everything))[:rows]))
