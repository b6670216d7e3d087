"""Bootstrap confidence intervals of classification metrics: percentile method (Efron, 1979).

Drawing N rows with replacement draws the cells of the confusion matrix from a multinomial with the observed shares.
Sampling the cells is the same distribution, and its cost grows with the number of distinct cells, not of rows.
"""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array

DRAWN = 4_000_000
"""Numbers held at a time."""


def intervals(
    targets: Array, predictions: Array, classes: int, resamples: int, seed: int, level: float = 0.95
) -> dict[str, float]:
    """`accuracy_low`, `accuracy_high`, `macro_f1_low`, `macro_f1_high`; targets and predictions int [N].

    A class that a resample happens to miss is left out of that resample's mean: as 0 it would push the whole
    interval below the estimate where classes are many and small. {} without resamples.
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
    """Accuracy and macro F1 of each resample, float64 [R, 2].

    draws: how often each cell was drawn, int [R, cells]; cell = target * classes + prediction.
    F1 of a class is 2 hits / (its rows + predictions of it). A class without a cell counts 0, as in the metrics.
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
