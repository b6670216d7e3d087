"""What a split keeps in proportion: classes, the rarest class of a set, or bins of a number. And what train must have.

Stratifying sets by their rarest class is a simple form of Sechidis et al., "On the stratification of multi-label
data", ECML PKDD 2011, which deals out the rarest class first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypath.components.data.splits.assign import FREE, TEST, TRAIN, VALID
from raypath.components.data.splits.label_statistics import LabelStatistics, SetMembers

Ints = NDArray[Any]
BINS = 10


def strata(found: LabelStatistics, given: Ints, shares: dict[int, float]) -> Ints:
    """The stratum of each row, int [N]."""
    if found.members is not None:
        return _rarest(found.members, found.counts(), len(given))
    if found.numbers is not None:
        return _bins(found.numbers, movable(given), min((s for s in shares.values() if s > 0), default=1.0))
    return found.codes


def movable(given: Ints) -> Ints:
    """True for rows that may go to any part, bool [N]."""
    free: Ints = (given == FREE) | (given == TRAIN)
    return free


def _rarest(members: SetMembers, counts: Ints, rows: int) -> Ints:
    """The class of each row that the fewest rows have; rows without a class are a stratum of their own."""
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    rarest = np.full(rows, len(counts), np.int64)
    np.minimum.at(rarest, members.rows, rank[members.codes])
    return rarest


def _bins(numbers: Ints, pool: Ints, share: float) -> Ints:
    """Quantile bins of equal size over the rows of `pool`: as many as give each part a row of each, at most ten."""
    rows = np.flatnonzero(pool)
    bins = min(BINS, max(1, int(len(rows) * share)))
    codes = np.zeros(len(numbers), np.int64)
    codes[rows[np.argsort(numbers[rows], kind="stable")]] = np.arange(len(rows)) * bins // max(len(rows), 1)
    return codes


def ensure_classes_in_train(found: LabelStatistics, given: Ints, parts: Ints) -> Ints:
    """The parts, with a row (and its group) moved to train for each class of the sets that train would lack.

    A row goes by its rarest class, so that another class it has can end up in valid and test alone.
    """
    if found.members is None:
        return parts
    parts = parts.copy()
    held = (parts == VALID) | (parts == TEST)
    for code in sorted(found.present(held) - found.present(parts == TRAIN)):
        rows = found.members.rows[found.members.codes == code]
        if (parts[rows] == TRAIN).any():
            continue  # a row that was moved for another class
        rows = rows[movable(given)[rows]]
        if len(rows):
            names = np.arange(len(parts)) if found.groups is None else found.groups
            parts[(names == names[rows[0]]) & movable(given)] = TRAIN
    return parts
