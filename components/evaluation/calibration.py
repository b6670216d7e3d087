"""Calibration of probabilities: rows by confidence, and the temperature that fits a validation split best.

Guo et al., On Calibration of Modern Neural Networks, 2017. Binary decisions, such as those of sets of classes, are
rows of two classes here (`metrics.decisions`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypath.components.core.arrays import Array

_TINY = 1e-12
_LOG_RANGE = (-2.5, 2.5)
"""Range of the logarithm of the temperature."""


@dataclass(frozen=True)
class Bins:
    """Rows by confidence in bins of equal width; each [B]. Means are 0 in an empty bin."""

    rows: Array
    confidence: Array
    accuracy: Array


def reliability(targets: Array, probabilities: Array, bins: int = 15) -> Bins:
    """Compute rows, mean confidence and accuracy of each bin. targets int [N], probabilities float64 [N, K]."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    slot = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = np.bincount(slot, minlength=bins)
    known = np.maximum(rows, 1)
    return Bins(
        rows, np.bincount(slot, confidence, bins) / known, np.bincount(slot, right.astype(np.float64), bins) / known
    )


def at_temperature(probabilities: Array, temperature: float) -> Array:
    """Divide the logits of probabilities float64 [N, K] by a temperature; log p differs from them by a constant."""
    logits = np.log(np.maximum(probabilities, _TINY)) / temperature
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(logits / logits.sum(axis=1, keepdims=True))


def fit_temperature(targets: Array, probabilities: Array) -> float:
    """Choose the temperature with the least log loss. targets int [N], probabilities float64 [N, K]."""
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    found = minimize_scalar(
        lambda log: float(_losses(targets, probabilities, float(np.exp(log))).mean()),
        bounds=_LOG_RANGE,
        method="bounded",
    )
    return float(np.exp(found.x))


def temperature_helps(targets: Array, probabilities: Array) -> bool:
    """Return True if a temperature lowers the log loss of rows that it was not fitted on, by more than chance.

    Each half of the rows is judged by the temperature of the other; the mean gain has to be 1.645 of its standard
    errors above 0.
    """
    if len(targets) < 20:
        return False
    odd = np.arange(len(targets)) % 2 == 1
    gains = np.zeros(len(targets))
    for half in (odd, ~odd):
        fitted = fit_temperature(targets[~half], probabilities[~half])
        gains[half] = _losses(targets[half], probabilities[half], 1.0) - _losses(
            targets[half], probabilities[half], fitted
        )
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    return bool(gains.mean() > 1.645 * error and gains.mean() > 0)


def _losses(targets: Array, probabilities: Array, temperature: float) -> Array:
    own = at_temperature(probabilities, temperature)[np.arange(len(targets)), targets]
    return np.asarray(-np.log(np.maximum(own, _TINY)))
