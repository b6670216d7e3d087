"""Rotation and attention over short rows on a CPU, as one step of automatic differentiation.

Written as operations of torch, each slice and each choice of rows would have a gradient of the full size, filled with
zeros and added to the others.
"""

from __future__ import annotations

from typing import Any

import torch

from raypath.components.models.decoder.row_layout import RowGroup, RowLayout


def rotate_and_attend(
    states: torch.Tensor,
    turn: tuple[torch.Tensor, torch.Tensor] | None,
    layout: RowLayout,
    heads: int,
    window: int,
    scale: float,
) -> torch.Tensor:
    """Attention inside rows, [T, heads * d]. states [T, heads + 2 * key heads, d]: queries, keys and values.

    turn: cos and sin of rotary position embeddings, float32 [T, d / 2]; None leaves queries and keys as they are.
    window: tokens that each one attends to, itself included.
    """
    cos, sin = turn if turn is not None else (None, None)
    found: torch.Tensor = _Attend.apply(states, cos, sin, layout, heads, window, scale)
    return found


class _Attend(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, states: Any, cos: Any, sin: Any, layout: RowLayout, heads: int, window: int, scale: float
    ) -> Any:
        keys = (states.shape[1] - heads) // 2
        if cos is not None:
            states = rotated(states, cos, sin, heads + keys)
        kept, mixed = [], []
        with torch.autocast(states.device.type, enabled=False):
            for group in layout.groups:
                query, key, value = _split(states.index_select(0, group.index), group, heads, keys)
                bias = layout.mask(group.length, group.length, window, heads // keys, query)
                weights = torch.baddbmm(bias[None], query, key.transpose(1, 2), alpha=scale).softmax(-1)
                mixed.append(_by_token(torch.bmm(weights, value), group, keys))
                kept += [query, key, value, weights]
            found = _joined(mixed).index_select(0, layout.place)
        ctx.save_for_backward(cos, sin, *kept)
        ctx.layout, ctx.heads, ctx.keys, ctx.scale = layout, heads, keys, scale
        return found

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        cos, sin, *kept = ctx.saved_tensors
        layout, heads, keys = ctx.layout, ctx.heads, ctx.keys
        parts = []
        with torch.autocast(upstream[0].device.type, enabled=False):
            for number, group in enumerate(layout.groups):
                query, key, value, weights = kept[4 * number : 4 * number + 4]
                given = upstream[0].index_select(0, group.index)
                given.view(group.rows, group.length, -1).masked_fill_(group.padding[..., None], 0.0)
                given = _by_head(given.view(len(given), heads, -1), group, keys)
                scores = torch.ops.aten._softmax_backward_data(
                    torch.bmm(given, value.transpose(1, 2)), weights, -1, weights.dtype
                )
                made = torch.empty(
                    len(group.index), heads + 2 * keys, query.shape[-1], dtype=query.dtype, device=query.device
                )
                made[:, :heads] = _by_token(torch.bmm(scores, key).mul_(ctx.scale), group, keys).view(
                    len(made), heads, -1
                )
                made[:, heads : heads + keys] = _of_keys(
                    torch.bmm(scores.transpose(1, 2), query).mul_(ctx.scale), group
                )
                made[:, heads + keys :] = _of_keys(torch.bmm(weights.transpose(1, 2), given), group)
                parts.append(made)
            found = _joined(parts)
            if layout.expanded is None:
                found = found.index_select(0, layout.place)
                found[len(found) - layout.rest :] = 0.0
            else:  # tokens that rows share have a gradient from each
                index = torch.cat([group.index for group in layout.groups])
                found = found.new_zeros(len(layout.place), *found.shape[1:]).index_add_(0, index, found)
            if cos is not None:
                found = rotated(found, cos, -sin, heads + keys, into=found)
        return found, None, None, None, None, None, None


def _split(some: torch.Tensor, group: RowGroup, heads: int, keys: int) -> tuple[torch.Tensor, ...]:
    """Queries [B * key heads, repeat * L, d], keys, values [B * key heads, L, d] of a group. some [B * L, all, d]."""
    key, value = (
        each.reshape(group.rows, group.length, keys, -1).transpose(1, 2).reshape(group.rows * keys, group.length, -1)
        for each in (some[:, heads : heads + keys], some[:, heads + keys :])
    )
    return _by_head(some[:, :heads], group, keys), key, value


def _by_head(some: torch.Tensor, group: RowGroup, keys: int) -> torch.Tensor:
    """Heads that share keys, one below the other: [B * key heads, repeat * L, d]. some [B * L, heads, d]."""
    split = some.reshape(group.rows, group.length, keys, -1, some.shape[-1])
    return split.permute(0, 2, 3, 1, 4).reshape(group.rows * keys, -1, some.shape[-1])


def _by_token(some: torch.Tensor, group: RowGroup, keys: int) -> torch.Tensor:
    """Inverse of `_by_head`: [B * L, heads * d]."""
    split = some.view(group.rows, keys, -1, group.length, some.shape[-1])
    return split.permute(0, 3, 1, 2, 4).reshape(group.rows * group.length, -1)


def _of_keys(some: torch.Tensor, group: RowGroup) -> torch.Tensor:
    """Gradients of keys or values by token, [B * L, key heads, d]. some [B * key heads, L, d]."""
    split = some.view(group.rows, -1, group.length, some.shape[-1])
    return split.transpose(1, 2).reshape(group.rows * group.length, -1, some.shape[-1])


def rotated(
    states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, count: int, into: torch.Tensor | None = None
) -> torch.Tensor:
    """Rotate the first `count` heads, keep the others: [T, heads, d]; in place where `into` is the states."""
    cos, sin = cos[:, None], sin[:, None]
    half = states.shape[-1] // 2
    made = torch.empty_like(states) if into is None else into
    first, second = states[:, :count, :half].float(), states[:, :count, half:].float()
    turned = (first * cos).addcmul_(second, sin, value=-1)  # `made` may be where `first` is
    made[:, :count, half:] = (second * cos).addcmul_(first, sin)
    made[:, :count, :half] = turned
    if into is None:
        made[:, count:] = states[:, count:]
    return made


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
