"""Which row goes to which part. Numbers only: class codes, group codes and random keys, never texts.

Allocation is by largest remainder (Hamilton's method): a class with n rows gets within one row of share * n.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[Any]

FREE, TRAIN, VALID, TEST, DROPPED = -1, 0, 1, 2, 3
NAMES = {TRAIN: "train", VALID: "valid", TEST: "test"}


def assign(codes: Ints, given: Ints, groups: Ints | None, shares: dict[int, float], seed: int) -> Ints:
    """The part of every row, int8 [N].

    codes: class of each row, int [N]. given: FREE or the part the data says, int8 [N]; DROPPED rows stay so.
    groups: rows with the same number stay together, int [N]. shares: VALID and TEST -> fraction of the rows that are
    free or train; a part that is given some rows takes no more.
    """
    parts = given.copy()
    pool = np.flatnonzero((given == FREE) | (given == TRAIN))
    parts[pool] = TRAIN
    wanted = {part: share for part, share in shares.items() if share > 0 and not (given == part).any()}
    if wanted and len(pool):
        rng = np.random.default_rng(seed)
        if groups is None:
            parts[pool] = _by_class(codes[pool], wanted, rng)
        else:
            parts[pool] = _by_group(codes[pool], groups[pool], wanted, rng)
    return parts


def _by_class(codes: Ints, shares: dict[int, float], rng: np.random.Generator) -> Ints:
    """Exact counts a class, the rows by lot."""
    counts = np.bincount(codes)
    order = np.lexsort((rng.random(len(codes)), codes))  # classes one after another, in random order inside
    starts = np.cumsum(counts) - counts
    parts = np.full(len(codes), TRAIN, np.int8)
    taken = np.zeros_like(counts)
    for part in (TEST, VALID):
        if part in shares:
            # What is left for train, and for a part still to come, is at least one row.
            spare = counts - taken - 1
            number = allocate(counts, shares[part], spare)
            for start, size in zip(starts + taken, number, strict=True):
                parts[order[start : start + size]] = part
            taken = taken + number
    return parts


def allocate(counts: Ints, share: float, most: Ints) -> Ints:
    """Rows a class, int [K]: at least 1 and at most `most` of each.

    In all round(share * N), by largest remainder; more only where many classes are so small that one row is too much.
    """
    most = np.maximum(most, 0)
    quota = counts * share
    number = np.minimum(np.maximum(np.floor(quota + 1e-9).astype(np.int64), counts > 0), most)
    total = min(int(np.floor(counts.sum() * share + 0.5)), int(most.sum()))
    while number.sum() < total:
        behind = np.where(number < most, quota - number, -np.inf)
        number[int(np.argmax(behind))] += 1
    return number


def _by_group(codes: Ints, groups: Ints, shares: dict[int, float], rng: np.random.Generator) -> Ints:
    """Whole groups, the largest first, each to the part that still needs its classes most."""
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rows = np.argsort(inverse, kind="stable")
    starts = np.cumsum(sizes) - sizes
    order = np.lexsort((rng.random(len(sizes)), -sizes))
    names = np.array([TRAIN, *shares], np.int8)
    fractions = np.array([1.0 - sum(shares.values()), *shares.values()])
    need = fractions[:, None] * np.bincount(codes)[None, :]  # float64 [P, K]: rows a part still wants of a class
    empty = np.ones(len(names), bool)
    parts = np.full(len(codes), TRAIN, np.int8)
    for done, group in enumerate(order):
        mine = rows[starts[group] : starts[group] + sizes[group]]
        here = codes[mine]
        score = need[:, here].sum(axis=1)
        if len(order) - done <= empty.sum():
            score = np.where(empty, score, -np.inf)  # the last groups fill the parts that have none
        best = int(np.argmax(score))
        np.subtract.at(need[best], here, 1.0)
        empty[best] = False
        parts[mine] = names[best]
    return parts
