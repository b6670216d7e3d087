"""Which rows make which batch: by token budget, similar lengths together, the same for everybody who asks.

Padding is what a batch wastes. Rows are shuffled, cut into windows, sorted by length inside a window and filled
into steps up to the budget; the steps are shuffled again. All ranks compute the whole plan from (seed, epoch) and take
their own share of each step, so that they never disagree, and so that more ranks train the same course.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.int64]]
WINDOW = 8192
"""Rows that are sorted together: enough for little padding, few enough to keep the order random."""


def pack(lengths: Array, order: Array, budget: int) -> list[Array]:
    """Cut rows in `order` into batches of at most `budget` tokens, padding counted. Every batch has a row."""
    batches, start, longest = [], 0, 0
    for i, row in enumerate(order):
        longest = max(longest, int(lengths[row]))
        if i > start and longest * (i - start + 1) > budget:
            batches.append(order[start:i])
            start, longest = i, int(lengths[row])
    if start < len(order):
        batches.append(order[start:])
    return batches


def plan_epoch(lengths: Array, budget: int, seed: int, epoch: int) -> list[Array]:
    """Steps of one epoch: the row numbers of each. Every row is in exactly one.

    lengths int64 [N] in tokens; budget is tokens a step, padding counted, over all ranks together: how many ranks there
    are changes nothing about the steps.
    """
    rng = np.random.default_rng([seed, epoch])
    rows = rng.permutation(len(lengths))
    steps: list[Array] = []
    for start in range(0, len(rows), WINDOW):
        window = rows[start : start + WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        steps += pack(lengths, window, budget)
    return [steps[i] for i in rng.permutation(len(steps))]


def share(lengths: Array, step: Array, ranks: int, most: int) -> list[list[Array]]:
    """Micro-batches of a step for each rank: rows of similar length side by side, at most `most` tokens each.

    Rows are dealt out in turn, so that loads are even. Every rank gets as many micro-batches as any other, empty ones
    at the end, since ranks that share a model have to call it together.
    """
    cuts = [pack(lengths, step[rank::ranks], most) for rank in range(ranks)]
    count = max(map(len, cuts))
    return [[*mine, *[step[:0]] * (count - len(mine))] for mine in cuts]


def plan_inference(lengths: Array, budget: int) -> list[Array]:
    """Batches for a pass in which order does not matter: longest rows first, so that memory peaks at once."""
    return pack(lengths, np.argsort(-lengths, kind="stable"), budget)


def order_digest(epochs: list[list[Array]]) -> str:
    """A name for the order of the rows: two runs with the same one saw the same rows in the same steps."""
    seen = hashlib.sha256()
    for steps in epochs:
        for step in steps:
            seen.update(step.tobytes() + b"|")
    return seen.hexdigest()[:16]
