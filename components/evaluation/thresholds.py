"""Decision thresholds with the best F1 on the validation split.

Every threshold between two distinct probabilities is tried; for one class the F1-optimal decision is of this form
(Lipton, Elkan and Naryanaswamy, Optimal Thresholding of Classifiers to Maximize F1 Measure, 2014).
"""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array

DEFAULT_THRESHOLD = 0.5


def two_classes(targets: Array, probabilities: Array) -> float:
    """Choose the threshold of the second class with the best macro F1.

    targets 0 or 1 [N], probabilities of the second class float64 [N]. Macro F1 weighs both classes equally, as the
    task's default metric does. Returns 0.5 if one of the classes is missing.
    """
    positive = targets.astype(bool)
    if positive.all() or not positive.any():
        return DEFAULT_THRESHOLD
    cuts, hits, chosen = _cuts(positive, probabilities)
    rows, there = len(positive), int(positive.sum())
    missed = rows - there - (chosen - hits)  # rows of the first class predicted as such
    f1 = hits / (chosen + there) + missed / ((rows - chosen) + (rows - there))  # the mean of 2 h / (...) of both
    return _nearest(cuts, f1)


def one_class(present: Array, probabilities: Array) -> float:
    """Choose the threshold of one class with its best F1; both [N].

    Returns 0.5 if no row has the class: F1 is then 0 at any threshold.
    """
    positive = present.astype(bool)
    if not positive.any():
        return DEFAULT_THRESHOLD
    cuts, hits, chosen = _cuts(positive, probabilities)
    return _nearest(cuts, 2 * hits / (chosen + positive.sum()))


def _cuts(positive: Array, probabilities: Array) -> tuple[Array, Array, Array]:
    """List all thresholds, with the positives and rows at or above each; each [C].

    A threshold is halfway between two probabilities, or 0.5 if that is between the same two.
    """
    values, place = np.unique(probabilities, return_inverse=True)  # rising [M]
    caught = np.bincount(place, positive, minlength=len(values))[::-1].cumsum()[::-1]
    chosen = np.bincount(place, minlength=len(values))[::-1].cumsum()[::-1]
    below = np.concatenate([[-1.0], values])  # [M + 1]; cut n takes the rows above below[n]
    above = np.concatenate([values, [np.nextafter(max(1.0, values[-1]), 2.0)]])
    middle = (np.maximum(below, 0.0) + above) / 2
    cuts = np.where(middle > below, middle, above)  # adjacent floats have no midpoint
    cuts = np.where((below < DEFAULT_THRESHOLD) & (above >= DEFAULT_THRESHOLD), DEFAULT_THRESHOLD, cuts)
    return cuts, np.append(caught, 0.0), np.append(chosen, 0)


def _nearest(cuts: Array, scores: Array) -> float:
    """Return the best threshold; of equal ones the nearest to 0.5, then the lower."""
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - DEFAULT_THRESHOLD))]])
