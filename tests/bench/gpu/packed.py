"""A BERT classifier over packed rows: the tokens of all rows one after another, without padding.

The modules are those of the model that it is given, so that weights and gradients are the same. The top layer computes
the first token of each row alone, as components/models/encoders/fast_bert.py does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class PackedClassifier(nn.Module):
    """Logits float [R, classes] of packed rows. longest: tokens of the longest row that it is given."""

    def __init__(self, model: Any, longest: int) -> None:
        super().__init__()
        self.model, self.longest = model, longest

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """ids, positions: int64 [T]; starts: int32 [R + 1], the first token of each row, and T."""
        bert = self.model.bert
        parts = bert.embeddings
        states = (
            parts.word_embeddings(ids) + parts.position_embeddings(positions) + parts.token_type_embeddings.weight[0]
        )
        states = parts.LayerNorm(states)
        for layer in bert.encoder.layer[:-1]:
            states = self._layer(layer, states, states, starts, starts, self.longest)
        first = states[starts[:-1].long()]
        each = torch.arange(len(starts), dtype=torch.int32, device=starts.device)
        first = self._layer(bert.encoder.layer[-1], first, states, each, starts, 1)
        return self.model.classifier(torch.tanh(bert.pooler.dense(first)))

    def _layer(self, layer: Any, asking: Any, states: Any, asked: Any, starts: Any, most: int) -> torch.Tensor:
        """One layer for the tokens `asking` [A, H], whose rows begin at `asked`; keys and values are of `states`."""
        attention = layer.attention.self
        shape = (attention.num_attention_heads, attention.attention_head_size)
        if asking is states:
            query, key, value = self._project(states, attention.query, attention.key, attention.value)
        else:
            (query,) = self._project(asking, attention.query)
            key, value = self._project(states, attention.key, attention.value)
        query, key, value = (part.unflatten(-1, shape) for part in (query, key, value))
        mixed = attend(query, key, value, asked, starts, most, self.longest)
        return layer.feed_forward_chunk(layer.attention.output(mixed.flatten(-2), asking))

    @staticmethod
    def _project(states: torch.Tensor, *parts: nn.Linear) -> tuple[torch.Tensor, ...]:
        """Apply several projections as one matmul."""
        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        return nn.functional.linear(states, weight, bias).chunk(len(parts), -1)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, asked: Any, starts: Any, most: int, longest: int
) -> torch.Tensor:
    """Attention within rows, [A, heads, d]. query [A, heads, d]; key, value [T, heads, d]; asked, starts int32 [R + 1].

    On a GPU FlashAttention for rows of any length, which takes half precision alone; elsewhere with a mask [A, T].
    """
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        mixed = varlen_attn(query, key, value, asked, starts, most, longest)
        return mixed[0] if isinstance(mixed, tuple) else mixed
    rows = torch.arange(len(starts) - 1, device=starts.device)
    asking = rows.repeat_interleave(asked.diff(), output_size=len(query))
    having = rows.repeat_interleave(starts.diff(), output_size=len(key))
    mask = asking[:, None] == having[None, :]
    turned = (part.transpose(0, 1)[None] for part in (query, key, value))
    return nn.functional.scaled_dot_product_attention(*turned, attn_mask=mask)[0].transpose(0, 1)
