"""Attention inside the rows of a packed batch, for decoders whose attention transformers lets be replaced.

It is registered with transformers by name. transformers builds no mask for a name that it has no mask for, so that none
of T x T exists; rows of similar length are computed together instead (row_layout.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from raypath.components.models.decoder.projection import compute_dtype
from raypath.components.models.decoder.row_layout import RowGroup, RowLayout, causal
from raypath.components.models.encoders.fast_bert import SHORT_ROWS, SHORT_ROWS_BF16

NAME = "raypath_packed"
KNOWN = frozenset({"full_attention", "sliding_attention"})
"""Types of layers, in config.layer_types, that attention here computes."""
UNSUPPORTED = ("position_bias", "indices", "block_indices")
"""Arguments of attention in some decoders that change its scores."""
QUERIES = 256
"""Queries computed at a time where scores are written out for long rows."""


def register() -> None:
    """Register the attention function with transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    row_layout: RowLayout | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside rows: [1, T, heads, d]. query [1, heads, T, d]; key and value [1, key heads, T, d].

    Raises NotImplementedError for attention of another kind, such as with a position bias.
    """
    sinks = next((named[name] for name in ("s_aux", "sinks") if named.get(name) is not None), None)
    other = [name for name in UNSUPPORTED if named.get(name) is not None]
    if (
        row_layout is None
        or attention_mask is not None
        or other
        or named.get("is_causal") is False
        or not getattr(module, "is_causal", True)
    ):
        raise NotImplementedError(f"packed attention of {type(module).__name__} {' '.join(other)}")
    device = query.device.type
    dtype = compute_dtype(query)
    query, key, value = (each.to(dtype) for each in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window or row_layout.longest
    plain = sinks is None and not softcap
    if plain and device == "cuda" and query.dtype in (torch.float16, torch.bfloat16) and not dropout:
        return _varlen(query, key, value, row_layout, window, scale)[None], None
    query, key, value = query[0], key[0], value[0]  # [heads, T, d]
    mixed = []
    with torch.autocast(device, enabled=False):
        for group in row_layout.groups:
            some, keys, values = (each.index_select(1, group.index) for each in (query, key, value))
            if plain and not is_short(group.length, query):
                found = _fused(some, keys, values, group, window, scale, dropout)
            else:
                found = _written_out(some, keys, values, group, row_layout, window, scale, dropout, softcap, sinks)
            mixed.append(found)  # [heads, B * L, d]
        joined = mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)
        return joined.index_select(1, row_layout.place).transpose(0, 1)[None], None


def is_short(length: int, query: torch.Tensor) -> bool:
    """Return True for rows whose fused attention is slower on a CPU (fast_bert.py)."""
    return query.device.type == "cpu" and length <= (SHORT_ROWS_BF16 if query.dtype == torch.bfloat16 else SHORT_ROWS)


def _varlen(query: Any, key: Any, value: Any, layout: RowLayout, window: int, scale: float) -> torch.Tensor:
    """Flash attention over rows of any length, [T, heads, d]."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (each[0].transpose(0, 1).contiguous() for each in (query, key, value))
    longest = layout.longest
    span = (window - 1 if window < longest else -1, 0)
    starts = layout.starts
    if layout.expanded is not None:
        query, key, value = (each.index_select(0, layout.expanded[0]) for each in (query, key, value))
    found: torch.Tensor = varlen_attn(
        *(query, key, value, starts, starts, longest, longest),
        scale=scale,
        window_size=span,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found if layout.expanded is None else found.index_select(0, layout.expanded[1])


def _fused(
    query: Any, key: Any, value: Any, group: RowGroup, window: int, scale: float, dropout: float
) -> torch.Tensor:
    """PyTorch's fused attention, [heads, B * L, d]; with a sliding window, over blocks of queries and their keys."""
    heads, repeat = query.shape[0], query.shape[0] // key.shape[0]
    query = query.view(heads, group.rows, group.length, -1).transpose(0, 1)  # [B, heads, L, d]
    key, value = (_repeated(each, group, repeat) for each in (key, value))
    if window >= group.length:
        found = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scale
        )
        return found.transpose(0, 1).flatten(1, 2)
    found = []
    for start in range(0, group.length, window):
        end, first = min(start + window, group.length), max(0, start - window + 1)
        kept = causal(end - start, end - first, window, query.device)
        found.append(
            functional.scaled_dot_product_attention(
                query[:, :, start:end],
                key[:, :, first:end],
                value[:, :, first:end],
                attn_mask=kept,
                dropout_p=dropout,
                scale=scale,
            )
        )
    return torch.cat(found, dim=2).transpose(0, 1).flatten(1, 2)


def _repeated(states: torch.Tensor, group: RowGroup, repeat: int) -> torch.Tensor:
    """Repeat key heads for grouped queries: [B, heads, L, d]. states [key heads, B * L, d]."""
    states = states.view(states.shape[0], group.rows, group.length, -1).transpose(0, 1)
    return states if repeat == 1 else states.repeat_interleave(repeat, dim=1)


def _written_out(
    query: Any,
    key: Any,
    value: Any,
    group: RowGroup,
    layout: RowLayout,
    window: int,
    scale: float,
    dropout: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention by matmuls and a softmax, [heads, B * L, d]; heads that share keys are rows of one matmul."""
    n, repeat, rows, length = key.shape[0], query.shape[0] // key.shape[0], group.rows, group.length
    query = query.view(n, repeat, rows, length, -1).transpose(1, 2)  # [n, B, repeat, L, d]
    key, value = (each.view(n * rows, length, -1) for each in (key, value))
    step = length if is_short(length, query) else QUERIES
    found = []
    for start in range(0, length, step):
        end = min(start + step, length)
        first = max(0, start - window + 1)
        some = query[:, :, :, start:end].reshape(n * rows, repeat * (end - start), -1)
        bias = layout.mask(end - start, end - first, window, repeat, some)
        keys, values = key[:, first:end], value[:, first:end]
        if softcap:
            scores = torch.tanh(torch.bmm(some, keys.transpose(1, 2)) * (scale / softcap)) * softcap + bias
        else:
            scores = torch.baddbmm(bias[None], some, keys.transpose(1, 2), alpha=scale)
        weights = _softmax(scores, sinks, n, repeat, rows)
        mixed = torch.bmm(functional.dropout(weights, dropout) if dropout else weights, values)
        found.append(mixed.view(n, rows, repeat, end - start, -1))
    joined = found[0] if len(found) == 1 else torch.cat(found, dim=3)
    return joined.transpose(1, 2).reshape(n * repeat, rows * length, -1)


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None, n: int, repeat: int, rows: int) -> torch.Tensor:
    """Softmax over keys; with sinks [heads], each head has one more score that takes a share of the attention."""
    if sinks is None:
        return scores.softmax(-1)
    queries, length = scores.shape[1] // repeat, scores.shape[2]
    extra = sinks.to(scores.dtype).view(n, 1, repeat, 1, 1).expand(n, rows, repeat, queries, 1)
    extra = extra.reshape(n * rows, repeat * queries, 1)
    return torch.cat([scores, extra], dim=-1).softmax(-1)[..., :length]
