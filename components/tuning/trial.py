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
from raypath.components.training.batches.token_dataset import Rows, load_rows
from raypath.components.training.job import Job, Metrics
from raypath.components.training.loop.optimizer import groups
from raypath.components.training.loop.trainer import Training
from raypath.components.training.params import FinetuneParams
from raypath.components.tuning.population import adopt, stage
from raypath.components.tuning.search_space import Values


@dataclass(frozen=True)
class Brief:
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
    beside: int = 1
    """Trials that share a machine's memory, or a GPU's."""


class OutOfTime(Exception):
    """The search's time is over."""


def trial(config: dict[str, Any], brief: Brief) -> None:
    """Train with `config["trial"]["values"]`, fields of FinetuneParams, under an MLflow run of its own.

    Reports to Ray Tune at each rung: rung, score (higher is better), figure, metric, metrics, seconds. The end before
    the last one is reported as `over`, with `failed` for an error of ours, which costs no actor; others are raised.
    """
    # A model refers to itself, and few objects hold much memory: the trial before would lie there for many more.
    gc.collect()
    name, values = ray_tune.get_context().get_trial_name(), config["trial"]["values"]
    parent = f"{brief.tracking.parent}/{brief.step}"
    with track(brief.tracking, name=name, kind="trial", params=values, parent=parent) as run:
        try:
            _run(name, values, brief, run)
        except OutOfTime:
            ray_tune.report({"score": float("-inf"), "over": True})
        except RaypathError as error:
            run.tags({"raypath.failed": error.what})
            failed = [type(error).__name__, error.what, error.fix]
            ray_tune.report({"score": float("-inf"), "over": True, "failed": failed})


class Trial(Training):
    """A training that stops at rungs, equal shares of its steps, to be judged."""

    def __init__(self, job: Job, brief: Brief, name: str, values: Values, run: Track, started: float) -> None:
        # First, since a training looks for its checkpoints when it is made.
        self.clone = adopt(job.scratch, name, values) if brief.clones and job.scratch else ""
        super().__init__(job)
        self.brief, self.name, self.track = brief, name, run
        shares = {-(-self.steps * k // brief.rungs): k for k in range(1, brief.rungs)}
        self.shares = {step: rung for step, rung in shares.items() if step < self.steps}
        self._since = started
        self._seen: tuple[int, Metrics] = (0, {})
        job.on_evaluation = self._evaluated

    def tell(self, rung: int, metrics: Metrics, checkpoint: Path | None = None) -> None:
        """Report a rung; Ray Tune may end the trial here."""
        name = self.brief.metric or ("log_loss" if "log_loss" in metrics else self.task.metric)
        score = self.task.merit(name, metrics)
        seconds = time.perf_counter() - self._since
        told = {"rung": rung, "score": score, "figure": metrics[name], "metric": name, "seconds": seconds}
        told["metrics"] = {key: value for key, value in metrics.items() if "/" not in key}
        kept = ray_tune.Checkpoint.from_directory(checkpoint) if checkpoint else None
        ray_tune.report({**told, "clone": self.clone}, checkpoint=kept)
        self.clone, self._since = "", time.perf_counter()

    def _step(self, epoch: int, step: int, rows: Any) -> bool:
        if time.time() > self.brief.deadline:
            raise OutOfTime
        return super()._step(epoch, step, rows) or self.progress.step in self.shares

    def _save(self, name: str) -> None:
        """The checkpoint at a rung is written after the look, unless the look is to carry it along."""
        rung = self.shares.get(self.progress.step, 0) if name == "last" else 0
        if rung and not self.brief.clones:
            self.tell(rung, self._look())
        super()._save(name)
        if rung and self.brief.clones and self.job.scratch:
            self.tell(rung, self._look(), stage(self.job.scratch, self.name))

    def _restore(self) -> None:
        super()._restore()
        if self.brief.clones:
            # The optimizer came with the settings of the trial it was cloned from.
            for group, own in zip(self.optimizer.param_groups, groups(self.model, self.params), strict=True):
                group["peak"], group["weight_decay"] = own["peak"], own["weight_decay"]

    def _evaluated(self, step: int, metrics: Metrics) -> None:
        self._seen = step, metrics
        self.track.metrics({f"valid/{k}": v for k, v in metrics.items() if "/" not in k}, step)

    def _look(self) -> Metrics:
        """The figures on the validation part as the weights are now."""
        step = self.progress.step
        if self._seen[0] != step:
            self._evaluated(step, self.look())
        return self._seen[1]


def _run(name: str, values: dict[str, Any], brief: Brief, run: Track) -> None:
    started = time.perf_counter()
    folder = brief.scratch / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    training = Trial(_job(values, brief, folder, run), brief, name, values, run, started)
    metrics = reuse.load(folder / "kept", training)
    if metrics is None:
        metrics = training.run()
        # Where memory was short and something was cut, `finetune` may find more of it.
        if brief.keep and not training.prepared.fit.line:
            reuse.keep(folder / "kept", training, metrics)
    training.tell(brief.rungs, metrics)


def _job(values: dict[str, Any], brief: Brief, folder: Path, run: Track) -> Job:
    params = brief.finetune.override(values)
    train = _rows(brief.train, len(brief.metadata.labels), brief.train_rows, brief.seed)

    def on_step(step: int, steps: int, figures: Metrics) -> None:
        run.metrics({f"train/{k}": v for k, v in figures.items()}, step)

    task: Task = load_task(brief.metadata, params.objective).fit(train.targets)
    return Job(
        task=task,
        folder=brief.folder,
        train=train,
        valid=_rows(brief.valid, len(brief.metadata.labels), brief.valid_rows, brief.seed),
        params=params,
        seed=brief.seed,
        threads=brief.threads,
        beside=brief.beside,
        scratch=folder,
        on_step=on_step,
    )


@functools.lru_cache(maxsize=4)
def _rows(folder: str, labels: int, rows: int, seed: int) -> Rows:
    """The same `rows` rows for every trial, drawn at random; 0 takes all. Read once in a process."""
    everything = load_rows(folder, labels)
    if not rows or len(everything) <= rows:
        return everything
    return everything.subset(np.sort(np.random.default_rng(seed).permutation(len(everything))[:rows]))
