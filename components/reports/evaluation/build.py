"""Build the report on an evaluation from targets and decoded outputs; the texts stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset, Model
from raypath.components.data.wording import plural
from raypath.components.evaluation.proportions import Z, wilson
from raypath.components.evaluation.slices import LEVEL, MIN_ROWS, holm, slice_tests
from raypath.components.reports.evaluation.classes import class_parts
from raypath.components.reports.evaluation.columns import SliceColumn, slice_columns
from raypath.components.reports.evaluation.contents import Estimate, EvaluationReport, Slice
from raypath.components.reports.evaluation.numbers import number_parts
from raypath.components.reports.evaluation.outcome import Outcome
from raypath.components.reports.evaluation.sets import set_parts

_PARTS: dict[str, Callable[[Outcome], dict[str, Any]]] = {
    "label": class_parts,
    "labels": set_parts,
    "values": number_parts,
}
"""Parts of the report by `Task.plain`. A task with raw outputs has metrics alone."""


def build_report(model: Model, data: Dataset, outcome: Outcome, metrics: Mapping[str, float]) -> EvaluationReport:
    """Build the report. metrics: those of the step, with intervals as `<name>_low` and `<name>_high`."""
    task = outcome.task
    facts: dict[str, Any] = {"source": data.source, "rows": len(outcome.targets), "task": task.name, "base": model.base}
    facts |= {"model": model.digest, "test": data.digest, "metrics": _estimates(metrics)}
    make = _PARTS.get(task.plain)
    if make is None:
        return EvaluationReport(**facts)
    parts = make(outcome)
    scores, parts["slice_metric"] = parts.pop("scores")
    compared = compare_slices(scores, slice_columns(data))
    slices = [each for each in compared if each.rows >= MIN_ROWS]
    if small := len(compared) - len(slices):
        parts["skipped"] = [*parts["skipped"], f"{plural(small, 'slice')} of fewer than {MIN_ROWS} rows"]
    return EvaluationReport(**facts, **parts, slices=slices)


def compare_slices(scores: Array, columns: Sequence[SliceColumn]) -> list[Slice]:
    """Compare each slice with the other rows; the significantly worse first, then by column.

    scores: float64 [N], 0 or 1 for correct rows, a share, or a negated error. All slices of all columns are corrected
    together, by Holm's method.
    """
    tests = [slice_tests(scores, column.codes, len(column.values)) for column in columns]
    adjusted = holm(np.concatenate(tests)) if tests else np.zeros(0)
    found, start = [], 0
    for column in columns:
        found += _slices(column, scores, adjusted[start : start + len(column.values)])
        start += len(column.values)
    return sorted(found, key=lambda each: (not each.worse, each.p if each.worse and each.p is not None else 0.0))


def _slices(column: SliceColumn, scores: Array, p: Array) -> list[Slice]:
    chosen = column.codes >= 0
    rows = np.bincount(column.codes[chosen], minlength=len(column.values))
    sums = np.bincount(column.codes[chosen], scores[chosen], len(column.values))
    squares = np.bincount(column.codes[chosen], scores[chosen] ** 2, len(column.values))
    total, sign = scores.sum(), -1.0 if (scores < 0).any() else 1.0
    binary = bool(np.isin(scores, (0, 1)).all())
    found = []
    for n, value in enumerate(column.values):
        count = int(rows[n])
        if not count:
            continue
        mean = sums[n] / count
        low, high = _interval(binary, sums[n], squares[n], count)
        others = sign * (total - sums[n]) / max(len(scores) - count, 1)
        known = bool(np.isfinite(p[n]))
        ends = sorted((sign * low, sign * high))
        found.append(
            Slice(
                column=column.name,
                value=value,
                rows=count,
                score=Estimate(value=float(sign * mean), low=float(ends[0]), high=float(ends[1])),
                others=float(others),
                p=float(p[n]) if known else None,
                worse=known and bool(p[n] < LEVEL),
            )
        )
    return found


def _interval(binary: bool, total: float, squares: float, rows: int) -> tuple[float, float]:
    """Return Wilson's interval of a share, or that of a mean by its standard error."""
    if binary:
        low, high = wilson(np.array(total), np.array(rows))
        return float(low), float(high)
    mean = total / rows
    error = Z * np.sqrt(max(squares / rows - mean**2, 0.0) / max(rows - 1, 1))
    return float(mean - error), float(mean + error)


def _estimates(metrics: Mapping[str, float]) -> dict[str, Estimate]:
    """Pair the metrics of the whole split with their intervals."""
    bounds = {f"{name}_{end}" for name in metrics for end in ("low", "high")}
    whole = {name: value for name, value in metrics.items() if "/" not in name and name not in bounds}
    return {
        name: Estimate(value=value, low=metrics.get(f"{name}_low"), high=metrics.get(f"{name}_high"))
        for name, value in whole.items()
    }
