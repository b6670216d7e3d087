"""Bootstrap confidence intervals for multi-label classification and regression: percentile method (Efron, 1979).

Resamples are drawn as counts of each distinct row from a multinomial. Statistics are then weighted sums, and N rows
with few distinct values cost as those few.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raypath.components.core.arrays import Array

DRAWN = 200_000
"""Numbers in memory at a time: few enough for the CPU cache."""


def set_intervals(targets: Array, predictions: Array, resamples: int, seed: int) -> dict[str, float]:
    """Compute intervals of `micro_f1` and `subset_accuracy`; targets and predictions 0 or 1 [N, K]. {} without
    resamples.

    Both depend on four numbers of a row: its hits, its labels, its predictions, and whether all are correct.
    """
    there, given = targets.astype(bool), predictions.astype(bool)
    hits = (there & given).sum(axis=1)
    right = (there == given).all(axis=1)
    rows = np.stack([hits, there.sum(axis=1), given.sum(axis=1), right], axis=1)
    kinds, counts = np.unique(rows, axis=0, return_counts=True)  # [C, 4], [C]

    def statistics(draws: Array) -> Array:
        hits, labels, predicted, right = (draws @ kinds).T
        return np.stack([ratio(2 * hits, labels + predicted), right / len(targets)], axis=1)

    return between(("micro_f1", "subset_accuracy"), counts, statistics, resamples, seed)


def number_intervals(targets: Array, predictions: Array, resamples: int, seed: int) -> dict[str, float]:
    """Compute intervals of `r2`, `mae` and `spearman`, each the mean over targets; both float64 [N, T]. {} without
    resamples."""

    def statistics(draws: Array) -> Array:
        each = [number_statistics(draws, targets[:, t], predictions[:, t]) for t in range(targets.shape[1])]
        return np.asarray(np.mean(each, axis=0))

    return between(("r2", "mae", "spearman"), np.ones(len(targets), np.int64), statistics, resamples, seed)


def number_statistics(draws: Array, targets: Array, predictions: Array) -> Array:
    """Compute r2, mae and spearman of each resample, float64 [R, 3]. draws: counts of each row, [R, N].

    r2 is 1 - squared errors / squared distances from the resample's mean, 0 if all its targets are equal. Spearman's is
    Pearson's correlation of the ranks within the resample.
    """
    rows = draws.sum(axis=1)
    centred = targets - targets.mean()  # for numerical accuracy; distances do not change
    total = draws @ centred**2
    squares = total - (draws @ centred) ** 2 / rows
    missed = targets - predictions
    # Equal targets leave a rounding error.
    r2 = np.where(squares > 1e-12 * total, 1 - ratio(draws @ missed**2, squares), 0.0)
    ranked = correlation(draws, ranks(draws, targets), ranks(draws, predictions))
    return np.stack([r2, draws @ np.abs(missed) / rows, ranked], axis=1)


def ranks(draws: Array, values: Array) -> Array:
    """Rank each row within each resample, float64 [R, N]; equal values share their mean rank."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(distinct)))
    counts = np.add.reduceat(draws[:, order], starts, axis=1)  # [R, distinct]
    middle = np.cumsum(counts, axis=1) - (counts - 1) / 2
    return np.asarray(middle[:, place])


def correlation(draws: Array, first: Array, second: Array) -> Array:
    """Compute Pearson's correlation of each resample, float64 [R]; 0 if one side is constant. All [R, N]."""
    rows = draws.sum(axis=1, keepdims=True)
    a = first - (draws * first).sum(axis=1, keepdims=True) / rows
    b = second - (draws * second).sum(axis=1, keepdims=True) / rows
    spread = np.sqrt((draws * a**2).sum(axis=1) * (draws * b**2).sum(axis=1))
    return ratio((draws * a * b).sum(axis=1), spread)


def between(
    names: tuple[str, ...],
    counts: Array,
    statistics: Callable[[Array], Array],
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, float]:
    """Compute intervals `<name>_low` and `<name>_high`. counts: rows of each kind, [C]; statistics: [R, C] -> [R,
    names]."""
    if not resamples:
        return {}
    rng = np.random.default_rng(seed)
    step = max(1, DRAWN // len(counts))
    drawn = [statistics(draw(rng, counts, min(step, resamples - n))) for n in range(0, resamples, step)]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail], axis=0)
    found: dict[str, float] = {}
    for n, name in enumerate(names):
        found |= {f"{name}_low": float(low[n]), f"{name}_high": float(high[n])}
    return found


def draw(rng: np.random.Generator, counts: Array, resamples: int) -> Array:
    """Draw counts of each kind of row for each resample, float64 [R, C]."""
    rows, kinds = int(counts.sum()), len(counts)
    if rows > kinds:
        return rng.multinomial(rows, counts / rows, size=resamples).astype(np.float64)
    # All rows are distinct: counting random indices is equivalent and faster.
    drawn = rng.integers(0, rows, (resamples, rows)) + rows * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * rows).reshape(resamples, rows).astype(np.float64)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Divide, with 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(denominator)), where=denominator > 0)
