"""Targets and decoded outputs of a test split, and of validation rows for the temperature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.evaluation.calibration import (
    at_temperature,
    fit_temperature,
    reliability,
    temperature_helps,
)
from raypath.components.evaluation.metrics import calibration_error
from raypath.components.reports.evaluation.contents import Calibration, ReliabilityBin, Temperature, Threshold
from raypath.components.tasks.base import Task

FEWEST_VALID = 30
"""Validation rows below which no temperature is fitted."""
LISTED = 20
"""Rows or pairs that a list of the report has."""
_STEPS = 100


@dataclass(frozen=True)
class Outcome:
    """Rows as `Task.metrics` takes them: targets [N] or [N, K], decoded float64 [N, K].

    valid: the same of validation rows; None without a validation split.
    """

    task: Task
    targets: Array
    decoded: Array
    valid: tuple[Array, Array] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of classes or targets."""
        return self.task.metadata.labels


def calibration(
    targets: Array, probabilities: Array, valid: tuple[Array, Array] | None, valid_rows: int
) -> Calibration:
    """Compare confidence with accuracy; fit a temperature on validation rows. Targets int [N]."""
    bins = reliability(targets, probabilities)
    pairs = zip(bins.rows.tolist(), bins.confidence.tolist(), bins.accuracy.tolist(), strict=True)
    temperature = None
    if valid is not None and valid_rows >= FEWEST_VALID:
        value = fit_temperature(*valid)
        cooled = at_temperature(probabilities, value)
        temperature = Temperature(
            value=value,
            helps=temperature_helps(*valid),
            valid_rows=valid_rows,
            ece=calibration_error(targets, cooled),
            log_loss=_log_loss(targets, cooled),
        )
    return Calibration(
        ece=calibration_error(targets, probabilities),
        log_loss=_log_loss(targets, probabilities),
        bins=[ReliabilityBin(rows=rows, confidence=sure, accuracy=right) for rows, sure, right in pairs],
        temperature=temperature,
    )


def _log_loss(targets: Array, probabilities: Array) -> float:
    own = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).eps)).mean())


def thresholds(positive: Array, probabilities: Array) -> list[Threshold]:
    """Compute precision and recall at thresholds 0.01 to 0.99, from counts in 100 bins. Both [M]."""
    slot = np.minimum((probabilities * _STEPS + 1e-9).astype(np.int64), _STEPS - 1)
    hits = np.bincount(slot, positive, _STEPS)[::-1].cumsum()[::-1]
    chosen = np.bincount(slot, minlength=_STEPS)[::-1].cumsum()[::-1]
    there = float(positive.sum())
    return [
        Threshold(
            threshold=n / _STEPS,
            precision=float(hits[n] / chosen[n]) if chosen[n] else 1.0,
            recall=float(hits[n] / there) if there else 0.0,
            f1=float(2 * hits[n] / (chosen[n] + there)) if there else 0.0,
            chosen=float(chosen[n] / len(positive)),
        )
        for n in range(1, _STEPS)
    ]
