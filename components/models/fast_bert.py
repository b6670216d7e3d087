"""Encoders of BERT's shape: the same answers in less time.

In training, queries, keys and values of a layer are one product of matrices instead of three: 5% faster on two cores.
Attention over short rows is written out on a CPU, where the backward pass of torch's fused one is slow.

A sequence classification head reads one token, the first. What the top layer makes of the others is thrown away, so
its queries, its output projection and its feed-forward part need the first token only; keys and values still need all.
That is most of a layer: about a seventh of the work of a six-layer model, in training and in service alike.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn

FIRST_TOKEN_MODELS = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "data2vec-text"})
"""Model types whose sequence classification head reads the first token alone and whose layers are BERT's."""
SHORT_ROWS, SHORT_ROWS_BF16 = 128, 512
"""Tokens of a row up to which attention is written out on a CPU. For 2,048 tokens in rows of 128, 12 heads, two cores,
the backward pass takes 2.4 ms in bf16 where that of torch's fused attention takes 22.5, in fp32 7.2 and 9.3."""


def disable_cudnn_attention(device: str) -> None:
    """On a GPU let torch choose among fused attentions without cuDNN's, for the whole process.

    cuDNN's plans anew for each shape that it meets, and hardly a batch has another's: 13 ms of the processor a call
    forward and 17 backward on average, where a whole step of MiniLM-L6 over 16,384 tokens takes an H100 9 ms.
    """
    if device == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def read_first_token_only(model: nn.Module) -> bool:
    """Let the top layer of a sequence classifier compute the first token alone. Returns whether it could be done."""
    config: Any = model.config
    if config.model_type not in FIRST_TOKEN_MODELS or getattr(config, "is_decoder", False):
        return False
    layers = _layers(model)
    if not layers or not _is_plain(layers[-1]):
        return False
    layers[-1].forward = types.MethodType(_first_token, layers[-1])
    return True


def fuse_qkv(model: nn.Module) -> bool:
    """Let every layer compute queries, keys and values in one product while it is trained. Returns whether it could."""
    config: Any = model.config
    layers = _layers(model)
    if config.model_type not in FIRST_TOKEN_MODELS or getattr(config, "is_decoder", False) or not layers:
        return False
    if config._attn_implementation != "sdpa" or not all(map(_is_plain, layers)):
        return False
    for layer in layers:
        attention = layer.attention.self
        attention.forward = types.MethodType(_joined, attention)
    return True


def _layers(model: Any) -> list[Any]:
    base = getattr(model, model.base_model_prefix, None)
    return list(getattr(getattr(base, "encoder", None), "layer", ()))


def _is_plain(layer: Any) -> bool:
    attention = getattr(layer, "attention", None)
    parts = [getattr(attention, name, None) for name in ("self", "output")]
    projections = [getattr(parts[0], name, None) for name in ("query", "key", "value")]
    return all([*parts, *projections]) and hasattr(layer, "feed_forward_chunk")


def _joined(attention: Any, hidden_states: torch.Tensor, attention_mask: Any = None, *more: Any, **named: Any) -> Any:
    """Self-attention of all tokens, ([B, L, H], None). hidden_states [B, L, H]."""
    parts = (attention.query, attention.key, attention.value)
    if not attention.training or any(type(part) is not nn.Linear for part in parts):
        # In service the copy of the weights costs more than it saves; adapters have products of their own.
        return type(attention).forward(attention, hidden_states, attention_mask, *more, **named)
    rows, length, _ = hidden_states.shape
    weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    together = nn.functional.linear(hidden_states, weight, bias)
    shape = (rows, length, 3, attention.num_attention_heads, attention.attention_head_size)
    query, key, value = together.view(shape).permute(2, 0, 3, 1, 4)  # [B, heads, L, H / heads]
    mixed = _attend(query, key, value, attention_mask, attention.dropout.p, attention.scaling)
    return mixed.transpose(1, 2).reshape(rows, length, -1), None


def _first_token(layer: Any, hidden_states: torch.Tensor, attention_mask: Any = None, *_: Any, **__: Any) -> Any:
    """The layer's output for the first token, [B, 1, H]. hidden_states [B, L, H]; attention_mask [B, 1, 1 or L, L]."""
    attention = layer.attention.self
    rows = hidden_states.shape[0]
    first = hidden_states[:, :1]

    def heads(found: torch.Tensor) -> torch.Tensor:
        return found.view(rows, -1, attention.num_attention_heads, attention.attention_head_size).transpose(1, 2)

    context = _attend(
        heads(attention.query(first)),
        heads(attention.key(hidden_states)),
        heads(attention.value(hidden_states)),
        None if attention_mask is None else attention_mask[..., :1, :],
        attention.dropout.p if layer.training else 0.0,
        attention.scaling,
    )  # [B, heads, 1, H / heads]
    mixed = layer.attention.output(context.transpose(1, 2).reshape(rows, 1, -1), first)
    return layer.feed_forward_chunk(mixed)


def _attend(query: Any, key: Any, value: Any, mask: Any, dropout: float, scale: float) -> torch.Tensor:
    """softmax(query key' scale) value, [B, heads, Lq, d]. key, value [B, heads, L, d]; mask [B, 1, 1 or Lq, L] or None.

    mask: False, or minus much, where a token is not to be looked at.
    """
    short = SHORT_ROWS_BF16 if query.dtype == torch.bfloat16 else SHORT_ROWS
    if query.device.type != "cpu" or key.shape[-2] > short:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale
        )
    scores = (query * scale) @ key.transpose(-1, -2)  # [B, heads, Lq, L]
    if mask is not None:
        scores = scores + _bias(mask, scores.dtype)
    weights = scores.softmax(-1)
    return (nn.functional.dropout(weights, dropout) if dropout else weights) @ value


def _bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores for a mask."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def replay_features(model: nn.Module) -> None:
    """Let the encoder hand on what it is given as `inputs_embeds`: states of the first token, computed before.

    The head is then trained, or asked, without the encoder: `model(inputs_embeds=features[:, None])`, features
    float [B, H].
    """
    base: Any = model.base_model
    base.forward = types.MethodType(_replay, base)


def _replay(base: Any, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> Any:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    pooler = getattr(base, "pooler", None)
    pooled = pooler(inputs_embeds) if pooler is not None else None
    return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)
