"""Which rows make which batch: by token budget, similar lengths together, the same for everybody who asks.

Padding is what a batch wastes. Rows are shuffled, cut into windows, sorted by length inside a window and filled
into batches up to the budget; the batches are shuffled again. All ranks compute the whole plan from (seed, epoch)
and take their own share, so that every rank has the same number of steps.
"""

from __future__ import annotations

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


def plan_epoch(lengths: Array, budget: int, seed: int, epoch: int, ranks: int) -> list[list[Array]]:
    """Steps of one epoch: for each step one array of row numbers a rank. Every row is in exactly one.

    lengths int64 [N] in tokens; budget is tokens a rank and step.
    """
    dice = np.random.default_rng([seed, epoch])
    rows = dice.permutation(len(lengths))
    batches: list[Array] = []
    for start in range(0, len(rows), WINDOW):
        window = rows[start : start + WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += pack(lengths, window, budget * ranks)
    steps = [_share(batch, ranks) for batch in batches]
    return [steps[i] for i in dice.permutation(len(steps))]


def _share(batch: Array, ranks: int) -> list[Array]:
    """Deal a step's rows out to the ranks in turn; rows of similar length sit side by side, so loads are even."""
    return [batch[rank::ranks] for rank in range(ranks)]


def plan_inference(lengths: Array, budget: int) -> list[Array]:
    """Batches for a pass in which order does not matter: longest rows first, so that memory peaks at once."""
    return pack(lengths, np.argsort(-lengths, kind="stable"), budget)
