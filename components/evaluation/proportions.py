"""95% intervals of shares of rows, in closed form: exact enough for a class with few rows, and never empty."""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array

Z = 1.959964
"""Quantile of the normal distribution for 95%."""


def wilson(hits: Array, rows: Array) -> tuple[Array, Array]:
    """Compute Wilson's score interval (1927) of hits / rows, elementwise float64; 0 to 1 where there are no rows."""
    rows = np.asarray(rows, np.float64)
    known = np.maximum(rows, 1)
    share, spread = np.asarray(hits, np.float64) / known, Z**2 / known
    middle = (share + spread / 2) / (1 + spread)
    half = Z * np.sqrt(share * (1 - share) / known + spread / (4 * known)) / (1 + spread)
    low, high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
    return np.where(rows > 0, low, 0.0), np.where(rows > 0, high, 1.0)


def f1_interval(hits: Array, rows: Array, predicted: Array) -> tuple[Array, Array]:
    """Compute the interval of F1 = 2 h / (rows + predicted), elementwise float64.

    Of the rows that have the class or are predicted as such, h are both. F1 = 2 J / (1 + J) rises with that share J,
    so Wilson's interval of J gives one of F1.
    """
    low, high = wilson(hits, np.asarray(rows) + np.asarray(predicted) - np.asarray(hits))
    return 2 * low / (1 + low), 2 * high / (1 + high)
