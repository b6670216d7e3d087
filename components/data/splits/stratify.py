"""Strata of rows: their class, the rarest class of their set, or a quantile bin of their number.

Stratification of sets by the rarest class is a simple form of Sechidis et al., "On the stratification of multi-label
data", ECML PKDD 2011, which distributes the rarest class first.
"""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.data.splits.assign import FREE, TEST, TRAIN, VALID
from raypath.components.data.splits.label_statistics import LabelStatistics, SetMembers

BINS = 10


def strata(statistics: LabelStatistics, given: Array, shares: dict[int, float]) -> Array:
    """Return the stratum of each row, int [N]."""
    if statistics.members is not None:
        return _rarest(statistics.members, statistics.counts(), len(given))
    if statistics.numbers is not None:
        return _bins(statistics.numbers, movable(given), min((s for s in shares.values() if s > 0), default=1.0))
    return statistics.codes


def movable(given: Array) -> Array:
    """Return a mask of the rows that may be assigned to any split, bool [N]."""
    free: Array = (given == FREE) | (given == TRAIN)
    return free


def _rarest(members: SetMembers, counts: Array, rows: int) -> Array:
    """Rank of the rarest class of each row; rows without a class form a stratum of their own."""
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    rarest = np.full(rows, len(counts), np.int64)
    np.minimum.at(rarest, members.rows, rank[members.codes])
    return rarest


def _bins(numbers: Array, pool: Array, share: float) -> Array:
    """Quantile bins of equal size over the rows of `pool`: at most ten, and few enough for a row of each per split."""
    rows = np.flatnonzero(pool)
    bins = min(BINS, max(1, int(len(rows) * share)))
    codes = np.zeros(len(numbers), np.int64)
    codes[rows[np.argsort(numbers[rows], kind="stable")]] = np.arange(len(rows)) * bins // max(len(rows), 1)
    return codes


def ensure_classes_in_train(statistics: LabelStatistics, given: Array, splits: Array) -> Array:
    """Move a row, with its group, to train for each class of the sets that train lacks; returns the new splits.

    Sets are stratified by their rarest class, so their other classes can end up in valid and test only.
    """
    if statistics.members is None:
        return splits
    splits = splits.copy()
    held_out = (splits == VALID) | (splits == TEST)
    for code in sorted(statistics.present(held_out) - statistics.present(splits == TRAIN)):
        rows = statistics.members.rows[statistics.members.codes == code]
        if (splits[rows] == TRAIN).any():
            continue  # a row that was moved for another class
        rows = rows[movable(given)[rows]]
        if len(rows):
            groups = np.arange(len(splits)) if statistics.groups is None else statistics.groups
            splits[(groups == groups[rows[0]]) & movable(given)] = TRAIN
    return splits
