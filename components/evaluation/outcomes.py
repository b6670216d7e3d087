"""Metrics as functions of row weights, so that resampling rows changes weights and computes no row again.

Each function returns the outcomes of one model: some numbers a row, and how a metric follows from them. The outcomes
of two models on the same rows are what `paired.compare` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.evaluation.bootstrap import correlation, ranks, ratio
from raypath.components.evaluation.metrics import decisions

Weighted = Callable[[Array], Array]
"""Metric by weights of rows: float64 [R, M] -> [R]."""
BINS = 15
"""Bins of the calibration error, as in `calibration_error`."""


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of a model by row, for one metric."""

    rows: Array
    """Numbers that the metric depends on, float64 [N, F]."""
    scores: Array
    """Score of each row alone, higher is better, float64 [N]: two models win, lose or tie a row by it."""
    metric: Callable[[Array], Weighted]
    """Build the weighted metric of any M rows [M, F]."""
    repeated: bool = False
    """The metric is computed again for each resample, by the model's own task: slow, so that there are fewer."""

    def value(self) -> float:
        """Return the metric of all rows."""
        return float(self.metric(self.rows)(np.ones((1, len(self.rows))))[0])

    def take(self, rows: Array) -> Outcomes:
        """Return the outcomes of some rows; rows: indices or bool [N]."""
        return replace(self, rows=self.rows[rows], scores=self.scores[rows])


def mean_outcomes(values: Array, lower: bool = False) -> Outcomes:
    """Return outcomes of a metric that is the mean of `values`, float64 [N]. lower: lower is better."""
    return Outcomes(np.asarray(values, np.float64)[:, None], -values if lower else values, _mean)


def repeated_outcomes(compute: Callable[[Array, Array], float], targets: Array, decoded: Array) -> Outcomes:
    """Return outcomes of any metric, computed on rows that are repeated as often as they weigh. No row is won or lost.

    compute: the metric of targets [M] or [M, K] and decoded outputs [M, ...].
    """
    wide = targets.reshape(len(targets), -1)

    def weighted(rows: Array) -> Weighted:
        there = rows[:, : wide.shape[1]].astype(targets.dtype).reshape(-1, *targets.shape[1:])
        given = rows[:, wide.shape[1] :].reshape(-1, *decoded.shape[1:])

        def each(drawn: Array) -> float:
            chosen = np.repeat(np.arange(len(rows)), drawn.astype(int))
            return float(compute(there[chosen], given[chosen]))

        return lambda weights: np.array([each(drawn) for drawn in weights])

    rows = np.concatenate([wide, decoded.reshape(len(targets), -1)], axis=1, dtype=np.float64)
    return Outcomes(rows, np.zeros(len(targets)), weighted, repeated=True)


def class_outcomes(
    metric: str, targets: Array, predictions: Array, probabilities: Array, labels: tuple[str, ...]
) -> Outcomes:
    """Return outcomes for a metric of `class_metrics`. targets and predictions int [N], probabilities [N, K].

    A row is won by the right class, for log_loss by the higher probability of it. Raises KeyError for another metric.
    """
    right = (targets == predictions).astype(np.float64)
    if metric == "accuracy":
        return mean_outcomes(right)
    if metric == "log_loss":
        chosen = _clipped(probabilities)[np.arange(len(targets)), targets]
        return mean_outcomes(-np.log(chosen), lower=True)
    if metric == "ece":
        return Outcomes(_bin_gaps(targets, probabilities), right, _absolute)
    pairs = np.stack([targets, predictions], axis=1).astype(np.float64)
    combine = _combine(metric, labels)

    def weighted(rows: Array) -> Weighted:
        there, given = (_one_hot(rows[:, n].astype(int), len(labels)) for n in (0, 1))
        return _from_counts(there, given, there.multiply(given).tocsr(), combine)

    return Outcomes(pairs, right, weighted)


def set_outcomes(
    metric: str, targets: Array, predictions: Array, probabilities: Array, labels: tuple[str, ...]
) -> Outcomes:
    """Return outcomes for a metric of `set_metrics`. targets and predictions 0 or 1 [N, K], probabilities [N, K].

    A row is won by more right decisions, for subset_accuracy by all of them, for log_loss by the lower loss.
    """
    there, given = targets.astype(np.float64), predictions.astype(np.float64)
    right = (there == given).mean(axis=1)
    if metric == "subset_accuracy":
        return mean_outcomes((there == given).all(axis=1).astype(np.float64))
    if metric == "hamming_loss":
        return mean_outcomes(1 - right, lower=True)
    if metric == "log_loss":
        sure = _clipped(np.where(there > 0, probabilities, 1 - probabilities))
        return mean_outcomes(-np.log(sure).mean(axis=1), lower=True)
    if metric == "ece":
        gaps = _bin_gaps(there.astype(int).ravel(), decisions(probabilities))
        return Outcomes(gaps.reshape(*there.shape, BINS).mean(axis=1), right, _absolute)
    if metric.startswith("samples_"):
        return mean_outcomes(_by_row(metric.removeprefix("samples_"), there, given))
    if metric == "mean_average_precision":
        return Outcomes(np.concatenate([there, probabilities], axis=1), right, _average_precision)
    combine = _combine(metric, labels)

    def weighted(rows: Array) -> Weighted:
        there, given = np.split(rows, 2, axis=1)
        return _from_counts(there, given, there * given, combine)

    return Outcomes(np.concatenate([there, given], axis=1), right, weighted)


def number_outcomes(metric: str, targets: Array, predictions: Array, labels: tuple[str, ...]) -> Outcomes:
    """Return outcomes for a metric of regression: the mean over targets, or `<metric>/<label>`. Both float64 [N, T].

    A row is won by the lower error: absolute for mae, else squared; its score is in standard deviations of the target,
    or in variances.
    """
    name, _, label = metric.partition("/")
    compute = _NUMBERS[name]
    chosen = [labels.index(label)] if label else list(range(len(labels)))
    there, given = targets[:, chosen].astype(np.float64), predictions[:, chosen].astype(np.float64)
    spread = there.std(axis=0)
    errors = np.abs(there - given) / np.where(spread > 0, spread, 1.0)
    lost = errors.mean(axis=1) if name == "mae" else (errors**2).mean(axis=1)
    middle = there.mean(axis=0)

    def weighted(rows: Array) -> Weighted:
        t, p = np.split(rows, 2, axis=1)
        return lambda weights: np.mean([compute(weights, t[:, k], p[:, k]) for k in range(t.shape[1])], axis=0)

    # Centred for numerical accuracy: no metric changes.
    return Outcomes(np.concatenate([there - middle, given - middle], axis=1), -lost, weighted)


def _mean(rows: Array) -> Weighted:
    return lambda weights: weights @ rows[:, 0] / weights.sum(axis=1)


def _absolute(rows: Array) -> Weighted:
    return lambda weights: np.abs(weights @ rows).sum(axis=1) / weights.sum(axis=1)


def _clipped(probabilities: Array) -> Array:
    tiny = np.finfo(np.float64).eps
    return np.clip(probabilities, tiny, 1 - tiny)


def _bin_gaps(targets: Array, probabilities: Array) -> Array:
    """Return confidence minus correctness in the column of the row's bin, float64 [N, BINS]."""
    confidence = probabilities.max(axis=1)
    gaps = np.zeros((len(targets), BINS))
    slot = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps[np.arange(len(targets)), slot] = confidence - (probabilities.argmax(axis=1) == targets)
    return gaps


def _one_hot(codes: Array, classes: int):  # type: ignore[no-untyped-def]
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

    return csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), codes)), shape=(len(codes), classes))


def _from_counts(there, given, hits, combine: Callable[[Array, Array, Array], Array]) -> Weighted:  # type: ignore[no-untyped-def]
    """Build a metric of the rows, predictions and hits of each class, each [R, K]; matrices [M, K], may be sparse."""

    def weighted(weights: Array) -> Array:
        return combine(*(np.asarray((each.T @ weights.T).T) for each in (there, given, hits)))

    return weighted


def _combine(metric: str, labels: tuple[str, ...]) -> Callable[[Array, Array, Array], Array]:
    """Return how precision, recall or F1 follows from rows, predictions and hits of each class, each [R, K]."""
    name, slash, label = metric.partition("/")
    average, _, kind = ("", "", name) if slash else name.partition("_")
    rate = _RATES[kind]
    if slash:
        k = labels.index(label)
        return lambda there, given, hits: rate(there[:, k], given[:, k], hits[:, k])
    if average == "micro":
        return lambda *counts: rate(*(each.sum(axis=1) for each in counts))
    if average == "macro":
        return lambda *counts: np.asarray(rate(*counts).mean(axis=1))
    if average != "weighted":
        raise KeyError(metric)
    return lambda *counts: ratio((rate(*counts) * counts[0]).sum(axis=1), counts[0].sum(axis=1))


_RATES: dict[str, Callable[[Array, Array, Array], Array]] = {
    "precision": lambda there, given, hits: ratio(hits, given),
    "recall": lambda there, given, hits: ratio(hits, there),
    "f1": lambda there, given, hits: ratio(2 * hits, there + given),
}


def _by_row(kind: str, there: Array, given: Array) -> Array:
    """Return precision, recall or F1 of each row's set of classes; 1 for a row without classes and predictions."""
    counts = there.sum(axis=1), given.sum(axis=1), (there * given).sum(axis=1)
    return np.where(counts[0] + counts[1] > 0, _RATES[kind](*counts), 1.0)


def _average_precision(rows: Array) -> Weighted:
    """Build the mean average precision over the classes that have rows; a resample's other classes are left out."""
    there, scores = np.split(rows, 2, axis=1)
    orders = np.argsort(-scores, axis=0, kind="stable")
    # Rows of one probability pass a threshold together: precision is taken at the last of them.
    lasts = [np.append(np.diff(scores[orders[:, k], k]) != 0, True) for k in range(scores.shape[1])]

    def weighted(weights: Array) -> Array:
        total, classes = np.zeros(len(weights)), np.zeros(len(weights))
        for k, last in enumerate(lasts):
            drawn = weights[:, orders[:, k]]
            hits = np.cumsum(drawn * there[orders[:, k], k], axis=1)
            precision = ratio(hits[:, last], np.cumsum(drawn, axis=1)[:, last])
            gained = np.diff(hits[:, last], axis=1, prepend=0.0)
            total += ratio((gained * precision).sum(axis=1), hits[:, -1])
            classes += hits[:, -1] > 0
        return ratio(total, classes)

    return weighted


def _r2(weights: Array, targets: Array, predictions: Array) -> Array:
    """Compute r2 as `number_statistics` does; of equal targets 0, or 1 if all are predicted."""
    rows, squares = weights.sum(axis=1), weights @ targets**2
    spread, missed = squares - (weights @ targets) ** 2 / rows, weights @ (targets - predictions) ** 2
    return np.where(spread > 1e-12 * squares, 1 - ratio(missed, spread), (missed == 0).astype(np.float64))


def _mse(weights: Array, targets: Array, predictions: Array) -> Array:
    return np.asarray(weights @ (targets - predictions) ** 2 / weights.sum(axis=1))


_NUMBERS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "mse": _mse,
    "rmse": lambda *given: np.sqrt(_mse(*given)),
    "mae": lambda weights, t, p: np.asarray(weights @ np.abs(t - p) / weights.sum(axis=1)),
    "r2": _r2,
    "pearson": lambda weights, t, p: correlation(weights, t[None], p[None]),
    "spearman": lambda weights, t, p: correlation(weights, ranks(weights, t), ranks(weights, p)),
}
