"""Assign rows to splits by class codes, group codes and a random generator; texts are not needed.

Rows are allocated by the largest remainder method (Hamilton): a class with n rows gets within one row of share * n.
"""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array

FREE, TRAIN, VALID, TEST, DROPPED = -1, 0, 1, 2, 3
SPLITS = {TRAIN: "train", VALID: "valid", TEST: "test"}


def assign(
    codes: Array,
    given: Array,
    groups: Array | None,
    shares: dict[int, float],
    seed: int,
    times: Array | None = None,
) -> Array:
    """Assign a split to every row, int8 [N].

    codes: class of each row, int [N]. given: the split that the data prescribes, or FREE, int8 [N]; DROPPED rows stay.
    groups: rows with the same number stay together, int [N]. shares: fraction of the free and train rows for VALID
    and TEST; a split with prescribed rows gets no others. times: int [N]; the latest rows are the test split then.
    """
    splits = given.copy()
    pool = np.flatnonzero((given == FREE) | (given == TRAIN))
    splits[pool] = TRAIN
    open_shares = {split: share for split, share in shares.items() if share > 0 and not (given == split).any()}
    if open_shares and len(pool):
        rng = np.random.default_rng(seed)
        if times is not None:
            splits[pool] = _by_time(times[pool], None if groups is None else groups[pool], open_shares)
        elif groups is None:
            splits[pool] = _by_class(codes[pool], open_shares, rng)
        else:
            splits[pool] = _by_group(codes[pool], groups[pool], open_shares, rng)
    return splits


def _by_class(codes: Array, shares: dict[int, float], rng: np.random.Generator) -> Array:
    """Choose rows at random, with an exact count per class."""
    counts = np.bincount(codes)
    order = np.lexsort((rng.random(len(codes)), codes))  # sorted by class, in random order within a class
    starts = np.cumsum(counts) - counts
    splits = np.full(len(codes), TRAIN, np.int8)
    taken = np.zeros_like(counts)
    for split in (TEST, VALID):
        if split in shares:
            # Leave at least one row for train and for the next split.
            spare = counts - taken - 1
            number = allocate(counts, shares[split], spare)
            for start, size in zip(starts + taken, number, strict=True):
                splits[order[start : start + size]] = split
            taken = taken + number
    return splits


def _by_time(times: Array, groups: Array | None, shares: dict[int, float]) -> Array:
    """Cut rows in the order of their times: train, valid, test. A group has the time of its last row."""
    rows = len(times)
    order, starts = np.argsort(times, kind="stable"), np.arange(rows)
    if groups is not None:
        _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        last = np.full(len(sizes), times.min())
        np.maximum.at(last, codes, times)
        order = np.lexsort((codes, last[codes]))
        # A cut within a group moves to its first row.
        sizes = sizes[np.lexsort((np.arange(len(sizes)), last))]
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    splits = np.full(rows, TRAIN, np.int8)
    end = rows
    for split in (TEST, VALID):
        if split in shares and end:
            start = int(starts[max(end - max(round(rows * shares[split]), 1), 0)])
            splits[order[start:end]] = split
            end = start
    return splits


def allocate(counts: Array, share: float, most: Array) -> Array:
    """Rows per class, int [K]: at least 1 and at most `most` of each.

    They sum to round(share * N), by largest remainder, or to more if one row of each small class exceeds the share.
    """
    most = np.maximum(most, 0)
    quota = counts * share
    number = np.minimum(np.maximum(np.floor(quota + 1e-9).astype(np.int64), counts > 0), most)
    total = min(int(np.floor(counts.sum() * share + 0.5)), int(most.sum()))
    while number.sum() < total:
        behind = np.where(number < most, quota - number, -np.inf)
        number[int(np.argmax(behind))] += 1
    return number


def _by_group(codes: Array, groups: Array, shares: dict[int, float], rng: np.random.Generator) -> Array:
    """Assign whole groups, the largest first, each to the split that still needs its classes most."""
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rows = np.argsort(inverse, kind="stable")
    starts = np.cumsum(sizes) - sizes
    order = np.lexsort((rng.random(len(sizes)), -sizes))
    names = np.array([TRAIN, *shares], np.int8)
    fractions = np.array([1.0 - sum(shares.values()), *shares.values()])
    need = fractions[:, None] * np.bincount(codes)[None, :]  # float64 [S, K]: rows of a class a split lacks
    empty = np.ones(len(names), bool)
    splits = np.full(len(codes), TRAIN, np.int8)
    for done, group in enumerate(order):
        mine = rows[starts[group] : starts[group] + sizes[group]]
        here = codes[mine]
        score = need[:, here].sum(axis=1)
        if len(order) - done <= empty.sum():
            score = np.where(empty, score, -np.inf)  # the last groups fill the empty splits
        best = int(np.argmax(score))
        np.subtract.at(need[best], here, 1.0)
        empty[best] = False
        splits[mine] = names[best]
    return splits
