"""Key-value cache that is allocated once for a batch.

transformers' own grows by concatenation, which copies all keys and values of a layer for each new token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

Rows = list[int]
"""Numbers of rows of a batch."""


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a layer, each [B, heads, capacity, head_dim]; `keys` and `values` are views of the filled
    part."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._filled = 0
        self._buffers: tuple[torch.Tensor, ...] = ()

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Append keys and values [B, heads, new, head_dim], and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = tuple(self._allocate(given, self._capacity) for given in (key_states, value_states))
        start, self._filled = self._filled, self._filled + key_states.shape[-2]
        if self._filled > self._capacity:
            self._grow(start)
        for buffer, given in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self._filled] = given
        self._show()
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Any) -> None:
        """Keep some rows of the batch, in the order of their indices; only the filled part is copied."""
        kept = [self._allocate(buffer[: len(beam_idx)], self._capacity) for buffer in self._buffers]
        for new, old in zip(kept, self._buffers, strict=True):
            new[:, :, : self._filled] = old[:, :, : self._filled].index_select(0, beam_idx)
        self._buffers = tuple(kept)
        self._show()

    @classmethod
    def joined(cls, parts: Sequence[tuple[PreallocatedLayer, Rows, int]], width: int, capacity: int) -> Self:
        """Join rows of several layers; see `joined`."""
        made = cls(capacity)
        first = parts[0][0]
        made.lazy_initialization(first.keys, first.values)
        made._filled = width
        made._buffers = tuple(
            _right_aligned([(getattr(layer, name), rows, wide) for layer, rows, wide in parts], width, capacity)
            for name in ("keys", "values")
        )
        made._show()
        return made

    def _grow(self, filled: int) -> None:
        self._capacity = max(self._filled, self._capacity * 3 // 2)
        grown = [self._allocate(buffer, self._capacity) for buffer in self._buffers]
        for new, old in zip(grown, self._buffers, strict=True):
            new[:, :, :filled] = old[:, :, :filled]
        self._buffers = tuple(grown)

    def _show(self) -> None:
        self.keys, self.values = (buffer[:, :, : self._filled] for buffer in self._buffers)

    @staticmethod
    def _allocate(like: Any, capacity: int) -> torch.Tensor:
        rows, heads, _, width = like.shape
        return torch.empty((rows, heads, capacity, width), dtype=like.dtype, device=like.device)


def new_cache(config: Any, capacity: int) -> DynamicCache:
    """Return an empty cache for a model. Layers with a window or a state of their own keep transformers' class."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer(capacity) if type(each) is DynamicLayer else each for each in cache.layers]
    return cache


def is_joinable(cache: DynamicCache, config: Any) -> bool:
    """Return True if rows of different batches can be put into one cache: all layers are of attention, with or without
    a window. Chunks of attention are counted from the first column, which padding would move."""
    kinds = getattr(config.get_text_config(decoder=True), "layer_types", None) or ()
    return "chunked_attention" not in kinds and all(
        type(each) in (PreallocatedLayer, DynamicSlidingWindowLayer) for each in cache.layers
    )


def joined(config: Any, parts: Sequence[tuple[DynamicCache, Rows, int]], width: int, capacity: int) -> DynamicCache:
    """Return a cache with the rows of several, aligned on the right.

    Args:
        parts: caches, the rows of each that are kept, and the most tokens of one of them.
        width: tokens of the longest row of all.
        capacity: tokens to allocate.
    """
    made = new_cache(config, capacity)
    parts = [part for part in parts if part[1]]
    for n, empty in enumerate(made.layers):
        layers = [(cache.layers[n], rows, wide) for cache, rows, wide in parts]
        if not layers[0][0].is_initialized:
            continue  # it shares the keys of another layer
        if isinstance(empty, PreallocatedLayer):
            made.layers[n] = PreallocatedLayer.joined(layers, width, capacity)
            continue
        empty.lazy_initialization(layers[0][0].keys, layers[0][0].values)
        shown = min(width, empty.sliding_window - 1)
        for name in ("keys", "values"):
            states = [(getattr(layer, name), rows, min(wide, shown)) for layer, rows, wide in layers]
            setattr(empty, name, _right_aligned(states, shown, shown))
        empty.cumulative_length = width
    return made


def _right_aligned(parts: Sequence[tuple[torch.Tensor, Rows, int]], width: int, capacity: int) -> torch.Tensor:
    """Copy rows of tensors [B, heads, tokens, head_dim], the last tokens of each, into one of `capacity` tokens."""
    first = parts[0][0]
    shape = (sum(len(rows) for _, rows, _ in parts), first.shape[1], capacity, first.shape[3])
    made = torch.empty(shape, dtype=first.dtype, device=first.device)
    start = 0
    for states, rows, wide in parts:
        end = start + len(rows)
        # Padding is masked, but a NaN in it would not be.
        made[start:end, :, : width - wide] = 0
        made[start:end, :, width - wide : width] = states[rows, :, states.shape[2] - wide :]
        start = end
    return made


def bytes_per_token(config: Any, element: int) -> int:
    """Return the bytes of keys and values of one token in all layers. element: bytes of a number."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(text.num_hidden_layers) * int(heads) * int(width) * element
