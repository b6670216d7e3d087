"""Batches by token budget: rows of similar length together, deterministic for a seed and epoch.

Rows are shuffled, split into windows, sorted by length within a window and packed into steps up to the budget; then the
steps are shuffled. This keeps padding low and the order random. Every rank computes the whole plan from (seed, epoch)
and takes its share of each step, so that ranks always agree and the number of ranks does not change the training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.int64]]
WINDOW = 8192
"""Rows sorted together: enough for little padding, few enough to keep the order random."""


def pack(lengths: Array, order: Array, budget: int, padded: bool = True) -> list[Array]:
    """Split rows in `order` into batches of at most `budget` tokens, including padding if there is any. Each batch has
    at least one row."""
    if not padded:
        return _pack_unpadded(lengths, order, budget)
    batches, start, longest = [], 0, 0
    for i, length in enumerate(lengths[order].tolist()):
        if length > longest:
            longest = length
        if i > start and longest * (i - start + 1) > budget:
            batches.append(order[start:i])
            start, longest = i, length
    if start < len(order):
        batches.append(order[start:])
    return batches


def _pack_unpadded(lengths: Array, order: Array, budget: int) -> list[Array]:
    batches, start, total = [], 0, 0
    for i, length in enumerate(lengths[order].tolist()):
        if i > start and total + length > budget:
            batches.append(order[start:i])
            start, total = i, 0
        total += length
    if start < len(order):
        batches.append(order[start:])
    return batches


def plan_epoch(lengths: Array, budget: int, seed: int, epoch: int) -> list[Array]:
    """Plan the steps of one epoch over rows in memory: the row numbers of each. Every row is in exactly one step.

    lengths int [N] in tokens; budget: tokens a step over all ranks, including padding, so that the number of ranks
    does not change the steps.
    """
    return plan_rows(lengths, np.arange(len(lengths)), budget, np.random.default_rng([seed, epoch]))


def plan_rows(lengths: Array, rows: Array, budget: int, rng: np.random.Generator, padded: bool = True) -> list[Array]:
    """Plan the steps of some rows: each of `rows` is in exactly one step. Without padding their order is random."""
    rows = rng.permutation(rows)
    if not padded:
        return pack(lengths, rows, budget, padded)
    steps: list[Array] = []
    for start in range(0, len(rows), WINDOW):
        window = rows[start : start + WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        steps += pack(lengths, window, budget)
    return [steps[i] for i in rng.permutation(len(steps))]


def share(lengths: Array, step: Array, world_size: int, most: int, padded: bool = True) -> list[list[Array]]:
    """Split a step into micro-batches for each rank: rows of similar length together, at most `most` tokens each.

    Rows are dealt out in turn, so that loads are even. All ranks get the same number of micro-batches, padded with
    empty ones, since ranks that share a model have to call it together.
    """
    cuts = [pack(lengths, step[rank::world_size], most, padded) for rank in range(world_size)]
    count = max(map(len, cuts))
    return [[*mine, *[step[:0]] * (count - len(mine))] for mine in cuts]


def plan_inference(lengths: Array, budget: int, rows: Array | None = None, padded: bool = True) -> list[Array]:
    """Plan batches for inference of all rows, or of some: longest first, so that memory peaks at the start."""
    if rows is None:
        return pack(lengths, np.argsort(-lengths, kind="stable"), budget, padded)
    return pack(lengths, rows[np.argsort(-lengths[rows], kind="stable")], budget, padded)


def order_digest(epochs: Iterable[Iterable[Array]]) -> str:
    """Digest of the row order: runs with the same digest trained on the same rows in the same steps."""
    seen = hashlib.sha256()
    for steps in epochs:
        for step in steps:
            seen.update(step.tobytes() + b"|")
    return seen.hexdigest()[:16]
