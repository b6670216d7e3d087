"""From which probability a class is predicted: the cut that makes F1 on the validation part best.

Every cut between two probabilities that differ is tried; for one class the F1-optimal decision is of this form
(Lipton, Elkan and Naryanaswamy, Optimal Thresholding of Classifiers to Maximize F1 Measure, 2014).
"""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array

DEFAULT_THRESHOLD = 0.5


def two_classes(targets: Array, probabilities: Array) -> float:
    """The probability of the second class from which it is predicted, for the best macro F1.

    targets 0 or 1 [N], probabilities of the second class float64 [N]. Macro F1 looks at both classes alike, as the
    task's own metric does. 0.5 where the part lacks one of the two classes: it cannot tell.
    """
    positive = targets.astype(bool)
    if positive.all() or not positive.any():
        return DEFAULT_THRESHOLD
    cuts, hits, chosen = _cuts(positive, probabilities)
    rows, there = len(positive), int(positive.sum())
    missed = rows - there - (chosen - hits)  # rows of the first class that stay with it
    f1 = hits / (chosen + there) + missed / ((rows - chosen) + (rows - there))  # the mean of 2 h / (...) of both
    return _nearest(cuts, f1)


def one_class(present: Array, probabilities: Array) -> float:
    """The probability from which a class of a set is predicted, for its best F1; both [N].

    0.5 where no row has the class: its F1 is 0 at any cut.
    """
    positive = present.astype(bool)
    if not positive.any():
        return DEFAULT_THRESHOLD
    cuts, hits, chosen = _cuts(positive, probabilities)
    return _nearest(cuts, 2 * hits / (chosen + positive.sum()))


def _cuts(positive: Array, probabilities: Array) -> tuple[Array, Array, Array]:
    """Every way to cut: the threshold, how many positives it catches, and how many rows; each [C].

    A threshold lies in the middle between two probabilities, or at 0.5 where that is between the same two.
    """
    values, place = np.unique(probabilities, return_inverse=True)  # rising [M]
    caught = np.bincount(place, positive, minlength=len(values))[::-1].cumsum()[::-1]
    chosen = np.bincount(place, minlength=len(values))[::-1].cumsum()[::-1]
    below = np.concatenate([[-1.0], values])  # [M + 1]; cut n takes the rows above below[n]
    above = np.concatenate([values, [np.nextafter(max(1.0, values[-1]), 2.0)]])
    middle = (np.maximum(below, 0.0) + above) / 2
    cuts = np.where(middle > below, middle, above)  # two neighbouring floats have no middle
    cuts = np.where((below < DEFAULT_THRESHOLD) & (above >= DEFAULT_THRESHOLD), DEFAULT_THRESHOLD, cuts)
    return cuts, np.append(caught, 0.0), np.append(chosen, 0)


def _nearest(cuts: Array, scores: Array) -> float:
    """Of the best cuts the one nearest to 0.5, the lower one of two as near."""
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - DEFAULT_THRESHOLD))]])
