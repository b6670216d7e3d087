"""Slices of a test split that are worse than the other rows, corrected for the number of slices compared."""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array

MIN_ROWS = 10
"""Rows of a slice, and of the others, below which it is not compared."""
LEVEL = 0.05
"""Chance that any slice is named although none is worse."""


def slice_tests(scores: Array, codes: Array, slices: int) -> Array:
    """Test, for each slice of a column, whether its rows score lower than the others; p-values float64 [slices].

    scores: float64 [N], higher is better. codes: slice of each row, int [N]; -1 for none, and such rows are among the
    others. Scores of 0 and 1 are compared by Fisher's exact test, others by the Mann-Whitney U test with its normal
    approximation, corrected for ties and continuity; both one-sided. NaN for a slice that is too small to compare.
    """
    chosen = codes >= 0
    rows = np.bincount(codes[chosen], minlength=slices)
    tested = (rows >= MIN_ROWS) & (len(scores) - rows >= MIN_ROWS)
    found = np.full(slices, np.nan)
    if tested.any():
        test = _fisher if bool(np.isin(scores, (0, 1)).all()) else _mann_whitney
        found[tested] = test(scores, codes, rows)[tested]
    return found


def _fisher(scores: Array, codes: Array, rows: Array) -> Array:
    from scipy.stats import hypergeom  # type: ignore[import-untyped]

    chosen = codes >= 0
    right = np.bincount(codes[chosen], scores[chosen], len(rows))
    return np.asarray(hypergeom.cdf(right, len(scores), int(scores.sum()), rows))


def _mann_whitney(scores: Array, codes: Array, rows: Array) -> Array:
    from scipy.stats import norm, rankdata

    size, chosen = len(scores), codes >= 0
    ranks = rankdata(scores)
    _, ties = np.unique(scores, return_counts=True)
    total = np.bincount(codes[chosen], ranks[chosen], len(rows))
    u = total - rows * (rows + 1) / 2
    spread = rows * (size - rows) / 12 * ((size + 1) - (ties**3 - ties).sum() / (size * (size - 1)))
    z = (u - rows * (size - rows) / 2 + 0.5) / np.sqrt(np.maximum(spread, 1e-12))
    return np.asarray(norm.cdf(z))


def holm(p: Array) -> Array:
    """Adjust p-values by Holm's method (1979), which bounds the chance of any false one under every dependence; NaN
    stays, and does not count."""
    found = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]
    factors = len(order) - np.arange(len(order))
    found[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return found
