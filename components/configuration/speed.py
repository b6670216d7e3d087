"""Speed of training, measured by real steps of the training loop on rows of the data."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.epoch_plan import EpochPlan
from raypath.components.training.batches.token_dataset import TokenDataset
from raypath.components.training.job import TrainingCallback, TrainingJob, TrainingState
from raypath.components.training.loop.trainer import start_training
from raypath.components.training.params import ResolvedParams

WARMUP_STEPS = 2
"""First steps, which are not timed: kernels are chosen and memory is allocated."""
SECONDS = 3.0
"""Time of the measured steps."""
LEAST_STEPS, MOST_STEPS = 4, 60
VALID_ROWS = 256
"""Rows of the measured validation pass."""


@dataclass(frozen=True)
class Effort:
    """Steps that are measured: first ones that are not timed, the least and most that are, and validation rows."""

    warmup: int = WARMUP_STEPS
    least: int = LEAST_STEPS
    most: int = MOST_STEPS
    valid_rows: int = VALID_ROWS


LARGE = Effort(warmup=1, least=2, valid_rows=8)
"""For models of which a step takes seconds."""


@dataclass(frozen=True)
class Speed:
    """Measured seconds: of a training step's token, padding included, of a token of a validation pass, and to load the
    model; and the tokens of a row with padding."""

    train: float
    valid: float
    load: float
    row_tokens: float

    def seconds(self, rows: int, valid_rows: int, epochs: int, share: float = 1.0) -> float:
        """Estimate the time of a training in seconds. share: time of its steps as a share of the measured ones."""
        epoch = (rows * self.train * share + valid_rows * self.valid) * self.row_tokens
        return self.load + epochs * epoch


class _Enough(Exception):
    """Enough steps were timed."""


class _Stopwatch(TrainingCallback):
    """Times steps after the first ones; ends the training when SECONDS have passed."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self.times: list[float] = []

    def before_step(self, training: TrainingState) -> None:
        self.times.append(time.perf_counter())
        first = self.effort.warmup
        done = len(self.times) - 1 - first
        if done >= self.effort.most or (done >= self.effort.least and self.times[-1] - self.times[first] > SECONDS):
            raise _Enough


def measure_speed(
    folder: Path,
    metadata: ModelMetadata,
    params: ResolvedParams,
    rows: TokenDataset,
    seed: int,
    threads: int,
    effort: Effort = Effort(),
) -> Speed:
    """Train a few steps on `rows`, and predict some; the weights are discarded. folder: the base model."""
    watch, began = _Stopwatch(effort), time.perf_counter()
    task = load_task(metadata, params.objective)
    # One process: several share the work of a step, so that its time is theirs.
    steps = len(EpochPlan(rows, params.batch_tokens, seed, 0, padded=task.padded))
    epochs = -(-(effort.warmup + effort.most + 1) // steps)
    alone = params.model_copy(update={"epochs": epochs, "evaluate_every": 10**9, "workers": 1, "max_workers": 0})
    valid = rows.subset(np.arange(min(len(rows), effort.valid_rows)))
    task = task.fit(rows.targets)
    training = start_training(TrainingJob(task, folder, rows, valid, alone, seed, threads, callback=watch))
    load = time.perf_counter() - began
    with contextlib.suppress(_Enough):
        training.run()
    plan = [step for epoch in training.epochs for step in epoch]
    tokens = [_tokens(rows.lengths[step], task.padded) for step in plan]
    timed = tokens[effort.warmup : len(watch.times) - 1]
    elapsed = watch.times[effort.warmup + len(timed)] - watch.times[effort.warmup]
    padded = sum(tokens[: len(training.epochs[0])])
    began = time.perf_counter()
    training.predict(valid)
    valid_seconds = time.perf_counter() - began
    return Speed(
        train=elapsed / sum(timed),
        valid=valid_seconds / max(1, int(valid.lengths.sum())),
        load=load,
        row_tokens=padded / len(rows),
    )


def _tokens(lengths: Array, padded: bool) -> int:
    """Return the tokens of a step. padded: with padding."""
    return int(lengths.max() * len(lengths) if padded else lengths.sum())
