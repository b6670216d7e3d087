"""Plan of an epoch over rows that are read in windows: a plan of blocks, and of rows within each window.

Blocks (row groups) are shuffled and divided into windows that fit in memory; within a window rows are planned as those
of a small dataset are (sampler). A window's plan depends only on (seed, epoch, window), so that a run resumes in the
middle of an epoch without planning what came before, and every rank has the same plan.
"""

from __future__ import annotations

import numpy as np

from raypath.components.training.batches.sampler import Array, plan_inference, plan_rows
from raypath.components.training.batches.step_plan import StepPlan
from raypath.components.training.batches.token_dataset import TokenRows


class EpochPlan(StepPlan):
    """Steps of one epoch: the row numbers of each. Every row is in exactly one step; a step is within one window.

    budget: tokens a step over all ranks, so that the number of ranks does not change the steps; including padding,
    where batches are padded. One window is planned at a time; rows that fit in one have the plan of `plan_epoch`.
    """

    def __init__(self, rows: TokenRows, budget: int, seed: int, epoch: int, padded: bool = True) -> None:
        self.lengths, self.budget, self.seed, self.padded = rows.lengths, budget, (seed, epoch), padded
        starts, sizes, limit = rows.blocks
        alone = int(sizes.sum()) <= limit
        order = np.arange(len(sizes)) if alone else np.random.default_rng([seed, epoch]).permutation(len(sizes))
        self.starts, self.windows = starts, windows(sizes, order, limit)
        self._planned: tuple[int, list[Array]] = (-1, [])
        counts = [len(self._window(number)) for number in reversed(range(len(self.windows)))]
        self._ends = np.cumsum(counts[::-1])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _rows(self, step: int) -> Array:
        number = int(np.searchsorted(self._ends, step, side="right"))
        first = int(self._ends[number - 1]) if number else 0
        return self._window(number)[step - first]

    def _window(self, number: int) -> list[Array]:
        if self._planned[0] != number:
            seed = self.seed if len(self.windows) == 1 else (*self.seed, number + 1)
            rows = rows_of(self.starts, self.windows[number])
            rng = np.random.default_rng(seed)
            self._planned = number, plan_rows(self.lengths, rows, self.budget, rng, self.padded)
        return self._planned[1]


def plan_validation(rows: TokenRows, budget: int, padded: bool = True) -> list[Array]:
    """Plan batches for inference, window by window in the order of the files; longest rows of a window first."""
    starts, sizes, limit = rows.blocks
    lengths: Array = rows.lengths
    batches: list[Array] = []
    for window in windows(sizes, np.arange(len(sizes)), limit):
        batches += plan_inference(lengths, budget, rows_of(starts, window), padded)
    return batches


def windows(sizes: Array, order: Array, limit: int) -> list[Array]:
    """Divide blocks in `order` into windows of at most `limit` numbers, but at least one block."""
    cuts, total = [0], 0
    for i, size in enumerate(sizes[order].tolist()):
        if total and total + size > limit:
            cuts.append(i)
            total = 0
        total += size
    return [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)]


def rows_of(starts: Array, blocks: Array) -> Array:
    """Row numbers of blocks, in the order of the blocks."""
    return np.concatenate([np.arange(starts[n], starts[n + 1]) for n in blocks])
