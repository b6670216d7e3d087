"""Evidence for the gate: a new model and the champion on the rows of one test split, all of it and by slices.

Outputs by row that `evaluate` stored, and a version with its files, are used; a model without them is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError
from raypath.components.evaluation.generation.stored import load_counts
from raypath.components.evaluation.outcomes import Outcomes, mean_outcomes
from raypath.components.evaluation.paired import TIE, compare
from raypath.components.inference.backends.precision_config import machine, read_choice
from raypath.components.inference.batch.scoring import load_outputs, read_targets, score
from raypath.components.inference.batch.slices import class_slices, column_slices
from raypath.components.inference.generation.evaluation.evidence import gather_answers
from raypath.components.models.metadata import read_metadata
from raypath.components.registry.evidence import Evidence, Slice
from raypath.components.reports.evaluation.comparison import LISTED, RowChange
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import check_task, load_task
from raypath.components.tasks.text_classification import TextClassification


@dataclass(frozen=True)
class Side:
    """A model in a comparison, and where its outputs for the test split are stored; None if nowhere."""

    folder: Path
    stored: Path | None = None


def gather(
    new: Side, old: Side, data: Dataset, metric: str, threads: int = 1, seed: int = 0, speed: float = 0.0
) -> Evidence:
    """Compare two models on `data`. Raises DataError if they are not comparable.

    speed: rows per second of the new version, measured on this machine with `threads`; 0 if they were not.
    """
    answered = load_counts(new.stored) if new.stored is not None else None
    if answered is not None:
        return gather_answers(answered, old.folder, old.stored is not None, data, metric, threads, seed)
    own, other = read_metadata(new.folder), read_metadata(old.folder)
    check_task(other, [own.task, *(column.kind for column in own.columns)])
    tasks = load_task(own), load_task(other)
    if type(tasks[0]) is not type(tasks[1]) or set(own.labels) != set(other.labels):
        raise DataError("it has another task or other labels")
    targets = read_targets(own, data)
    scored = [
        _Scored.of(side, task, data, targets, own.labels, threads) for side, task in zip((new, old), tasks, strict=True)
    ]
    first, second = (each.outcomes(metric) for each in scored)
    if first.repeated and (own.labels, own.thresholds) != (other.labels, other.thresholds):
        raise DataError(f"its labels are in another order, or its thresholds differ, which {metric} does not allow")
    found = compare(first, second, tasks[0].is_lower(metric), seed=seed)
    slices = [
        Slice(name, compare(mean_outcomes(one[rows]), mean_outcomes(two[rows]), seed=seed))
        for name, rows, one, two in _slices(scored[0], scored[1], (first, second), targets, data)
    ]
    note = "evaluated on this test split" if scored[1].was_run else ""
    speeds = (speed, _speed(old.folder, threads)) if speed else (0.0, 0.0)
    better = first.scores - second.scores
    won, lost = (_changes(scored[0], scored[1], sign * better) for sign in (1, -1))
    return Evidence(metric, found, slices, speeds, note, won, lost)


@dataclass(frozen=True)
class _Scored:
    """A model's outputs on the test split. labels: the order of labels that both models are brought to."""

    task: Task
    targets: Array
    """In the model's own numbering."""
    decoded: Array
    labels: tuple[str, ...]
    was_run: bool

    @classmethod
    def of(
        cls, side: Side, task: Task, data: Dataset, targets: Array, labels: tuple[str, ...], threads: int
    ) -> _Scored:
        """Read a model's outputs, or run it. targets: in the order of `labels`."""
        outputs = load_outputs(side.stored, (len(targets), task.outputs)) if side.stored else None
        was_run = outputs is None
        if outputs is None:
            outputs = score(side.folder, data, threads)[1]
        order = [labels.index(label) for label in task.metadata.labels]
        own = targets[:, order] if targets.ndim == 2 else np.argsort(order)[targets]
        return cls(task, np.asarray(own), task.decode(outputs), labels, was_run)

    def outcomes(self, metric: str) -> Outcomes:
        """Return outcomes by row; those of the base class for a task that redefines a metric of its parent."""
        known = self.task.metrics(self.targets, self.decoded)
        if metric not in known:
            raise DataError(f"its task has no metric {metric}")
        found = self.task.outcomes(metric, self.targets, self.decoded, self.labels)
        if math.isclose(found.value(), known[metric], rel_tol=1e-6, abs_tol=1e-6):
            return found
        return Task.outcomes(self.task, metric, self.targets, self.decoded, self.labels)

    def labels_of(self, rows: Array) -> list[str]:
        """Format the labels of some rows."""
        return _format_rows(self.task.target_columns(self.targets[rows]), "label")

    def predictions_of(self, rows: Array) -> list[str]:
        """Format the predictions of some rows."""
        return _format_rows(self.task.columns(self.decoded[rows]), "predicted")

    @cached_property
    def classes(self) -> Array:
        """1 where a class is predicted, else 0, float64 [N, K] in the order of `labels`; [N, 0] without classes."""
        if not isinstance(self.task, TextClassification):
            return np.zeros((len(self.decoded), 0))
        predicted, own = self.task.predicted(self.decoded), self.task.metadata.labels
        every = predicted if predicted.ndim == 2 else predicted[:, None] == np.arange(len(own))
        return np.asarray(every, np.float64)[:, [own.index(label) for label in self.labels]]


def _changes(new: _Scored, old: _Scored, better: Array) -> list[RowChange]:
    """List the rows that one model predicts better than the other, the largest difference first. better: [N]."""
    order = np.argsort(-better, kind="stable")[:LISTED]
    rows = order[better[order] > TIE]
    columns = (new.labels_of(rows), new.predictions_of(rows), old.predictions_of(rows))
    return [
        RowChange(row=int(row), label=label, new=first, old=second)
        for row, label, first, second in zip(rows, *columns, strict=True)
    ]


def _format_rows(columns: Mapping[str, pa.Array], name: str) -> list[str]:
    """Format the columns of this name, or those of several numbers, by row."""
    chosen = [column.to_pylist() for key, column in columns.items() if key.startswith(name)]
    return ["; ".join(map(_format_value, row)) for row in zip(*chosen, strict=True)]


def _format_value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _slices(
    new: _Scored, old: _Scored, outcomes: tuple[Outcomes, Outcomes], targets: Array, data: Dataset
) -> Iterator[tuple[str, Array, Array, Array]]:
    """Yield name, rows (bool [N]) and both models' scores by row [N]. A class counts by its recall."""
    if new.classes.shape[1]:
        for name, k, rows in class_slices(new.labels, targets):
            yield name, rows, new.classes[:, k], old.classes[:, k]
    for name, rows in column_slices(data):
        yield name, rows, outcomes[0].scores, outcomes[1].scores


def _speed(folder: Path, threads: int) -> float:
    """Return the rows per second of a version as measured on a machine like this one with as many threads, else 0."""
    choice = read_choice(folder)
    if choice is None or choice.machine.threads != threads or not choice.machine.is_like(machine("cpu", threads)):
        return 0.0
    return choice.rows_per_second
