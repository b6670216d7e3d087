"""Key-value cache that is allocated once for a batch.

transformers' own grows by concatenation, which copies all keys and values of a layer for each new token.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer


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


def bytes_per_token(config: Any, element: int) -> int:
    """Return the bytes of keys and values of one token in all layers. element: bytes of a number."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(text.num_hidden_layers) * int(heads) * int(width) * element
