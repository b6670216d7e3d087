"""One trial of `tune`: a run of the training loop in an actor of Ray Tune that reports at each rung.

A trial trains exactly as `finetune` with the same settings would: validation passes at rungs change nothing. Its
checkpoints are in the step's scratch folder under its own name, so that an interrupted trial resumes.
"""

from __future__ import annotations

import functools
import gc
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune as ray_tune

from raypath.components.core.context import Tracking
from raypath.components.core.errors import RaypathError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import load_task
from raypath.components.tracking import tags
from raypath.components.tracking.run import Track, track
from raypath.components.training import trial_weights
from raypath.components.training.batches.token_dataset import TokenRows, load_token_dataset
from raypath.components.training.job import Metrics, TrainingCallback, TrainingJob, TrainingState
from raypath.components.training.loop.optimizer import groups
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from raypath.components.tuning.population import adopt, stage
from raypath.components.tuning.search_space import Values


@dataclass(frozen=True)
class TrialConfig:
    """Settings common to all trials of a search."""

    folder: Path
    """The base model."""
    metadata: ModelMetadata
    finetune: ResolvedParams
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
    """Labels of the nodes that trials may run on; {} for any."""
    keep: bool
    """Keep the final weights: trials train exactly as `finetune` would."""
    clones: bool
    """Write a checkpoint at every rung that other trials can take over."""
    deadline: float
    """Unix time at which trials end."""
    concurrent_trials: int = 1
    """Trials that share the memory of a machine or GPU."""


class DeadlineExceeded(Exception):
    """The time of the search is over."""


def trial(config: dict[str, Any], trial_config: TrialConfig) -> None:
    """Train with `config["trial"]["values"]`, fields of ResolvedParams, in an MLflow run of its own.

    Each rung is reported to Ray Tune: rung, score (higher is better), value, metric, metrics, seconds. A trial that
    ends before its last rung reports `over`, with `failed` for a RaypathError, so that its actor can be reused; other
    exceptions are raised.
    """
    # The previous trial's model is part of a reference cycle and would stay in memory until the next collection.
    gc.collect()
    name, values = ray_tune.get_context().get_trial_name(), config["trial"]["values"]
    parent = f"{trial_config.tracking.parent}/{trial_config.step}"
    with track(trial_config.tracking, name=name, kind="trial", params=values, parent=parent) as run:
        try:
            _run(name, values, trial_config, run)
        except DeadlineExceeded:
            ray_tune.report({"score": float("-inf"), "over": True})
        except RaypathError as error:
            run.tags({tags.FAILED: error.what})
            failed = [type(error).__name__, error.what, error.fix]
            ray_tune.report({"score": float("-inf"), "over": True, "failed": failed})


class RungReporter(TrainingCallback):
    """Reports the validation metrics to Ray Tune at each rung: equal shares of the steps of a trial."""

    def __init__(
        self, task: Task, trial_config: TrialConfig, folder: Path, run: Track, started: float, clone: str = ""
    ) -> None:
        self.task, self.trial_config, self.folder, self.run = task, trial_config, folder, run
        self.clone = clone
        """Trial whose weights were taken over since the last rung; "" for none."""
        self._started = started
        self._rungs: dict[int, int] = {}
        """Rung by step, without the last rung."""
        self._last_validation: tuple[int, Metrics] = (0, {})

    def on_start(self, training: TrainingState) -> None:
        """Place the rungs; give a clone its own learning rates and weight decay."""
        rungs = self.trial_config.rungs
        steps = {-(-training.steps * k // rungs): k for k in range(1, rungs)}
        self._rungs = {step: rung for step, rung in steps.items() if step < training.steps}
        if self.trial_config.clones:
            # The optimizer state came with the settings of the trial that was cloned.
            own = groups(training.model, training.params)
            for group, settings in zip(training.optimizer.param_groups, own, strict=True):
                group["peak"], group["weight_decay"] = settings["peak"], settings["weight_decay"]

    def before_step(self, training: TrainingState) -> None:
        """Raise DeadlineExceeded when the time of the search is over."""
        if time.time() > self.trial_config.deadline:
            raise DeadlineExceeded

    def checkpoint_due(self, training: TrainingState) -> bool:
        """Request a checkpoint at every rung."""
        return training.progress.step in self._rungs

    def before_checkpoint(self, training: TrainingState) -> None:
        """Report the rung; with clones, `after_checkpoint` does, since the report includes the checkpoint."""
        rung = self._rungs.get(training.progress.step, 0)
        if rung and not self.trial_config.clones:
            self.report(rung, self._validated(training))

    def after_checkpoint(self, training: TrainingState) -> None:
        """Report the rung together with the checkpoint that other trials may take over."""
        rung = self._rungs.get(training.progress.step, 0)
        if rung and self.trial_config.clones:
            self.report(rung, self._validated(training), stage(self.folder, self.folder.name))

    def on_evaluation(self, step: int, metrics: Metrics) -> None:
        """Record the metrics of a validation pass."""
        self._last_validation = step, metrics
        self.run.metrics({f"valid/{k}": v for k, v in metrics.items() if "/" not in k}, step)

    def report(self, rung: int, metrics: Metrics, checkpoint: Path | None = None) -> None:
        """Report a rung; Ray Tune may end the trial here."""
        name = self.trial_config.metric or ("log_loss" if "log_loss" in metrics else self.task.metric)
        result = {
            "rung": rung,
            "score": self.task.score(name, metrics),
            "value": metrics[name],
            "metric": name,
            "seconds": time.perf_counter() - self._started,
            "metrics": {key: value for key, value in metrics.items() if "/" not in key},
            "clone": self.clone,
        }
        kept = ray_tune.Checkpoint.from_directory(checkpoint) if checkpoint else None
        ray_tune.report(result, checkpoint=kept)
        self.clone, self._started = "", time.perf_counter()

    def _validated(self, training: TrainingState) -> Metrics:
        """Metrics of the current weights; a validation pass runs only if this step has had none."""
        step = training.progress.step
        if self._last_validation[0] != step:
            self.on_evaluation(step, training.validate())
        return self._last_validation[1]


def prepare(
    job: TrainingJob, trial_config: TrialConfig, values: Values, run: Track, started: float
) -> tuple[Training, RungReporter]:
    """Build the training of a trial in the folder `job.scratch`, with the weights of another trial if it is a clone."""
    folder = job.scratch
    assert folder is not None, "trials keep checkpoints"
    # Before the training is built, which looks for its checkpoints.
    clone = adopt(folder, folder.name, values) if trial_config.clones else ""
    reporter = RungReporter(job.task, trial_config, folder, run, started, clone)
    return start_training(replace(job, callback=reporter, on_evaluation=reporter.on_evaluation)), reporter


def _run(name: str, values: dict[str, Any], trial_config: TrialConfig, run: Track) -> None:
    started = time.perf_counter()
    folder = trial_config.scratch / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    training, reporter = prepare(_job(values, trial_config, folder, run), trial_config, values, run, started)
    metrics = trial_weights.load(folder / "kept", training)
    if metrics is None:
        metrics = training.run()
        # With a memory plan of its own the weights may differ: `finetune` may have more memory.
        if trial_config.keep and not training.prepared.memory_plan.summary:
            trial_weights.keep(folder / "kept", training, metrics)
    reporter.report(trial_config.rungs, metrics)


def _job(values: dict[str, Any], trial_config: TrialConfig, folder: Path, run: Track) -> TrainingJob:
    params = trial_config.finetune.override(values)
    labels = len(trial_config.metadata.labels)
    train = _rows(trial_config.train, labels, trial_config.train_rows, trial_config.seed)
    return TrainingJob(
        task=load_task(trial_config.metadata, params.objective).fit(train.targets),
        folder=trial_config.folder,
        train=train,
        valid=_rows(trial_config.valid, labels, trial_config.valid_rows, trial_config.seed),
        params=params,
        seed=trial_config.seed,
        threads=trial_config.threads,
        concurrent_trials=trial_config.concurrent_trials,
        scratch=folder,
        on_step=lambda step, steps, metrics: run.metrics({f"train/{k}": v for k, v in metrics.items()}, step),
    )


@functools.lru_cache(maxsize=4)
def _rows(folder: str, labels: int, rows: int, seed: int) -> TokenRows:
    """Sample `rows` rows, the same for every trial; 0 takes all. Cached, since Ray Tune reuses the actor's process."""
    everything = load_token_dataset(folder, labels)
    if not rows or len(everything) <= rows:
        return everything
    return everything.subset(np.sort(np.random.default_rng(seed).permutation(len(everything))[:rows]))
