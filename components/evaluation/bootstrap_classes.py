"""Bootstrap confidence intervals for classification metrics: percentile method (Efron, 1979).

Drawing N rows with replacement is equivalent to drawing the cells of the confusion matrix from a multinomial with the
observed shares, at a cost that grows with the number of distinct cells instead of rows.
"""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array

DRAWN = 4_000_000
"""Numbers in memory at a time."""


def intervals(
    targets: Array, predictions: Array, classes: int, resamples: int, seed: int, level: float = 0.95
) -> dict[str, float]:
    """Compute `accuracy_low`, `accuracy_high`, `macro_f1_low`, `macro_f1_high`; targets and predictions int [N].

    A class missing from a resample is left out of its mean: counted as 0, it would push the whole interval below the
    estimate when classes are many and small. {} without resamples.
    """
    if not resamples:
        return {}
    cells, counts = np.unique(targets * classes + predictions, return_counts=True)
    rng = np.random.default_rng(seed)
    step = max(1, DRAWN // len(cells))
    drawn = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = rng.multinomial(len(targets), counts / counts.sum(), size=size)  # int64 [R, cells]
        drawn.append(statistics(draws, cells, classes))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail], axis=0)
    names = ("accuracy", "macro_f1")
    return {f"{n}_low": float(low[i]) for i, n in enumerate(names)} | {
        f"{n}_high": float(high[i]) for i, n in enumerate(names)
    }


def statistics(draws: Array, cells: Array, classes: int) -> Array:
    """Compute accuracy and macro F1 of each resample, float64 [R, 2].

    draws: counts of each cell, int [R, cells]; cell = target * classes + prediction. F1 of a class is 2 hits / (its
    rows + predictions of it). A class without a cell counts 0, as in the metrics.
    """
    target, prediction = np.divmod(cells, classes)
    right = target == prediction
    hits = _per_class(draws[:, right], target[right], classes)  # [R, K]
    both = _per_class(draws, target, classes) + _per_class(draws, prediction, classes)
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    accuracy = hits.sum(axis=1) / draws.sum(axis=1)
    missed = len(np.union1d(target, prediction)) - (both > 0).sum(axis=1)  # of the classes that have cells
    return np.stack([accuracy, f1.sum(axis=1) / (classes - missed)], axis=1)


def _per_class(draws: Array, owner: Array, classes: int) -> Array:
    """Sum the columns of each class: [R, cells] -> float64 [R, K]."""
    found = np.zeros((classes, len(draws)))
    np.add.at(found, owner, draws.T)
    return found.T
