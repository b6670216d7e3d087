"""Layout of a packed batch for attention: groups of rows of similar length that are computed together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

PADDED = 1.25
"""Tokens that a group takes within attention, with its rows padded to the longest, at most this many times its own."""


@dataclass(frozen=True)
class RowGroup:
    """B rows, each padded to L tokens by repeating its last one. index: int64 [B * L], their places in the batch."""

    index: torch.Tensor
    rows: int
    length: int


@dataclass(frozen=True)
class RowLayout:
    """Rows of a packed batch of T tokens.

    place: int64 [T], where each token is among those of all groups, one after another; starts: int32 [B + 1].
    """

    groups: tuple[RowGroup, ...]
    place: torch.Tensor
    starts: torch.Tensor
    longest: int
    _masks: dict[Any, torch.Tensor] = field(default_factory=dict)

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


def row_layout(row_starts: torch.Tensor) -> RowLayout:
    """Lay out the rows of a packed batch. row_starts: int64 [B + 1]."""
    bounds = row_starts.tolist()
    lengths = [end - start for start, end in pairwise(bounds)]
    device = row_starts.device
    groups: list[RowGroup] = []
    place = torch.empty(bounds[-1], dtype=torch.int64, device=device)
    done = 0
    for rows in _grouped(lengths):
        longest = lengths[rows[0]]
        steps = torch.arange(longest, device=device)
        starts = torch.tensor([bounds[row] for row in rows], device=device)
        last = torch.tensor([lengths[row] - 1 for row in rows], device=device)
        index = starts[:, None] + torch.minimum(steps[None], last[:, None])  # [B, L]
        real = steps[None] <= last[:, None]
        own = torch.arange(done, done + index.numel(), device=device).view_as(index)
        place[index[real]] = own[real]
        groups.append(RowGroup(index.reshape(-1), len(rows), longest))
        done += index.numel()
    return RowLayout(tuple(groups), place, row_starts.to(torch.int32), max(lengths, default=0))


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
