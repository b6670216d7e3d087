"""Layout of a packed batch for attention: groups of rows of similar length that are computed together.

A row may begin with tokens of the row before it, such as the rejected answer of a pair with the prompt of the chosen
one: the batch has them once, and attention reads them for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

PADDED = 1.25
"""Tokens that a group takes within attention, with its rows padded to the longest, at most this many times its own."""


TOKENS, LENGTHS = 32, 16
"""Tokens of a batch on a CPU, and of rows of a group, are rounded up to multiples of these: oneDNN compiles a kernel
for each shape of a matmul in bfloat16, which takes a millisecond, and keeps it, which takes a megabyte."""


def rounded_up(count: int, multiple: int) -> int:
    """Return the next multiple."""
    return -(-count // multiple) * multiple


@dataclass(frozen=True)
class RowGroup:
    """B rows, each padded to L tokens by repeating its last one.

    index: int64 [B * L], their places in the batch; padding: bool [B, L], those that are no tokens of the row's own.
    """

    index: torch.Tensor
    padding: torch.Tensor
    rows: int
    length: int


@dataclass(frozen=True)
class RowLayout:
    """Rows of a packed batch of T tokens.

    bounds: [B + 1], where rows start; taken: [B], tokens that each shares with the row before it; starts: int32
    [B + 1], of rows with the tokens that they share; rest: tokens of the T that are in no row, the last ones. expanded:
    where the tokens of all rows are in the batch, and where those of the batch are among them, int64; None without
    shared tokens.
    """

    bounds: list[int]
    taken: list[int]
    starts: torch.Tensor
    longest: int
    rest: int = 0
    expanded: tuple[torch.Tensor, torch.Tensor] | None = None
    _masks: dict[Any, torch.Tensor] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[RowGroup, ...]:
        """Groups of rows, see the module."""
        return self._grouped[0]

    @property
    def place(self) -> torch.Tensor:
        """Place of each token among those of all groups, one after another, int64 [T]."""
        return self._grouped[1]

    @cached_property
    def _grouped(self) -> tuple[tuple[RowGroup, ...], torch.Tensor]:
        # Made when it is read: flash attention on a GPU needs none, and building it waits for the GPU.
        return _groups(self.bounds, self.taken, self.rest, self.starts.device)

    def mask(self, queries: int, length: int, window: int, repeat: int, like: torch.Tensor) -> torch.Tensor:
        """Bias of causal attention, 0 or the smallest number, [repeat * queries, length], for the last `queries`."""
        key = (queries, length, min(window, length), repeat, like.dtype)
        if key not in self._masks:
            kept = causal(queries, length, window, like.device)
            bias = torch.zeros(kept.shape, dtype=like.dtype, device=like.device)
            self._masks[key] = bias.masked_fill_(~kept, torch.finfo(like.dtype).min).repeat(repeat, 1)
        return self._masks[key]


def causal(queries: int, length: int, window: int, device: Any) -> torch.Tensor:
    """Pairs that attend, bool [queries, length]: the last `queries` of `length` tokens, each to at most `window`."""
    places = torch.arange(length, device=device)
    distance = places[length - queries :, None] - places[None]
    return (distance >= 0) & (distance < window)


def row_layout(row_starts: torch.Tensor, shared: torch.Tensor | None = None, rest: int = 0) -> RowLayout:
    """Lay out the rows of a packed batch. row_starts: int64 [B + 1]; shared: int64 [B], see packed_batch.py, or None;
    rest: tokens after the last row, which are in none and whose states mean nothing."""
    bounds = row_starts.tolist()
    taken = [0] * (len(bounds) - 1) if shared is None else shared.tolist()
    lengths = [end - start + more for (start, end), more in zip(pairwise(bounds), taken, strict=True)]
    starts, expanded = row_starts.to(torch.int32), None
    if shared is not None:
        expanded = expand(row_starts, shared)
        starts = torch.tensor([0, *lengths], device=row_starts.device).cumsum(0).to(torch.int32)
    return RowLayout(bounds, taken, starts, max(lengths, default=0), rest, expanded)


def _groups(
    bounds: list[int], taken: list[int], rest: int, device: torch.device
) -> tuple[tuple[RowGroup, ...], torch.Tensor]:
    """Group the rows; return the groups and the place of each token among theirs, int64 [T]."""
    lengths = [end - start + more for (start, end), more in zip(pairwise(bounds), taken, strict=True)]
    groups: list[RowGroup] = []
    place = torch.zeros(bounds[-1] + rest, dtype=torch.int64, device=device)
    done = 0
    for rows in _grouped(lengths):
        longest = rounded_up(lengths[rows[0]], LENGTHS)
        steps = torch.arange(longest, device=device)
        last = torch.tensor([lengths[row] - 1 for row in rows], device=device)
        steps = torch.minimum(steps[None], last[:, None])  # [B, L]
        index, real = _places(rows, steps, bounds, taken)
        real &= torch.arange(longest, device=device)[None] <= last[:, None]
        own = torch.arange(done, done + index.numel(), device=device).view_as(index)
        place[index[real]] = own[real]
        groups.append(RowGroup(index.reshape(-1), ~real, len(rows), longest))
        done += index.numel()
    return tuple(groups), place


def _places(
    rows: list[int], steps: torch.Tensor, bounds: list[int], taken: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Places in the batch of tokens of rows, int64 [B, L], and which are the row's own, bool [B, L]. steps: numbers of
    the tokens in their rows."""
    device = steps.device
    starts = torch.tensor([bounds[row] for row in rows], device=device)[:, None]
    if not any(taken):
        return starts + steps, torch.ones_like(steps, dtype=torch.bool)
    before = torch.tensor([bounds[max(row - 1, 0)] for row in rows], device=device)[:, None]
    more = torch.tensor([taken[row] for row in rows], device=device)[:, None]
    own = steps >= more
    return torch.where(own, starts + steps - more, before + steps), own


def expand(row_starts: torch.Tensor, shared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the tokens of rows are in the batch, one row after another with those that it shares, int64 [T'],
    and where each token of the batch is among them, int64 [T]."""
    bounds, taken = row_starts.tolist(), shared.tolist()
    device = row_starts.device
    pieces = []
    for row, more in enumerate(taken):
        before = bounds[max(row - 1, 0)]
        pieces += [torch.arange(before, before + more), torch.arange(bounds[row], bounds[row + 1])]
    own = torch.cat([torch.full((len(piece),), bool(n % 2)) for n, piece in enumerate(pieces)])
    return torch.cat(pieces).to(device), own.nonzero()[:, 0].to(device)


def _grouped(lengths: list[int]) -> Iterator[list[int]]:
    """Yield row numbers of each group, the longest row first; rows without tokens are in none."""
    order = sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row])
    group: list[int] = []
    tokens = 0
    for row in order:
        if group and lengths[group[0]] * (len(group) + 1) > PADDED * (tokens + lengths[row]):
            yield group
            group, tokens = [], 0
        group.append(row)
        tokens += lengths[row]
    if group:
        yield group
