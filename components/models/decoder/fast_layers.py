"""Layers of decoders like Llama, computed with fewer and larger operations; the outputs are the same.

The projections to queries, keys and values are one matmul, and so are those of a gated feed-forward block
(projection.py). Norms, rotations and gates are single steps of automatic differentiation, which keep what their
gradients need and no more. Layers of another kind stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch

from raypath.components.models.decoder.gate import gated, project_gated
from raypath.components.models.decoder.packed_attention import is_short, packed_attention
from raypath.components.models.decoder.projection import compute_dtype, layer_of, project
from raypath.components.models.decoder.row_layout import RowLayout
from raypath.components.models.decoder.short_rows import rotate_and_attend, rotated
from raypath.components.models.encoders.fast_bert import replace_forward, restore_forward

ATTENTION = frozenset(
    {"LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention", "SmolLM3Attention", "GraniteAttention"}
)
"""Attention classes whose forward pass `_attention` is: projections, norms of queries and keys if there are any, a
rotation by `position_embeddings`, attention, output."""
GELU = frozenset({"GELUTanh", "PytorchGELUTanh"})


def use_fast_layers(model: Any) -> list[Any]:
    """Replace the forward pass of layers that are known; return them."""
    changed = []
    for module in model.modules():
        if type(module).__name__ in ATTENTION and hasattr(module, "o_proj"):
            replace_forward(module, _attention)
        elif all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")) and _gate(module):
            replace_forward(module, _feed_forward)
        elif type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            replace_forward(module, _norm)
        else:
            continue
        changed.append(module)
    return changed


def use_own_layers(changed: list[Any]) -> None:
    """Undo `use_fast_layers`."""
    restore_forward(*changed)


def _together(modules: list[Any], x: torch.Tensor) -> torch.Tensor:
    """Outputs of linear layers side by side, [T, sum of out]. x [T, in]."""
    layers = [layer_of(module) for module in modules]
    known = [layer for layer in layers if layer is not None]
    if len(known) < len(layers):
        return torch.cat([module(x).to(compute_dtype(x)) for module in modules], dim=1)
    return project(x, known, compute_dtype(x))


def _attention(
    attention: Any,
    hidden_states: torch.Tensor,
    position_embeddings: Any = None,
    attention_mask: Any = None,
    row_layout: Any = None,
    **named: Any,
) -> Any:
    """Attention of a Llama over a packed batch: ([1, T, H], None). hidden_states [1, T, H]."""
    if row_layout is None:
        return type(attention).forward(
            attention, hidden_states, position_embeddings=position_embeddings, attention_mask=attention_mask, **named
        )
    x = hidden_states[0]
    size = attention.head_dim
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    together = _together(parts, x).view(len(x), -1, size)  # [T, heads, d]
    keys = attention.config.num_key_value_heads
    heads = together.shape[1] - 2 * keys
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(together[:, :heads]), attention.k_norm(together[:, heads : heads + keys])
        together = torch.cat([query, key, together[:, heads + keys :]], dim=1)
    turn = None
    if getattr(attention, "use_rope", True):
        turn = position_embeddings[0][0, :, : size // 2], position_embeddings[1][0, :, : size // 2]
    # A Mistral's is in the configuration, for all layers alike.
    held = attention.config if type(attention).__name__ == "MistralAttention" else attention
    window = getattr(held, "sliding_window", None) or row_layout.longest
    dropout = attention.attention_dropout if attention.training else 0.0
    if is_short(row_layout.longest, together) and not dropout:
        mixed = rotate_and_attend(together, turn, row_layout, heads, window, attention.scaling)
    else:
        mixed = _long_rows(attention, together, turn, row_layout, heads, window, dropout)
    return _together([attention.o_proj], mixed)[None], None


def _long_rows(
    attention: Any, states: Any, turn: Any, row_layout: RowLayout, heads: int, window: int, dropout: float
) -> torch.Tensor:
    """Attention over rows of any length, [T, heads * d]; see `rotate_and_attend`."""
    keys = (states.shape[1] - heads) // 2
    turned = states[:, : heads + keys] if turn is None else _Rotate.apply(states[:, : heads + keys], *turn)
    parts = (turned[:, :heads], turned[:, heads:], states[:, heads + keys :])
    query, key, value = (each.transpose(0, 1)[None] for each in parts)
    mixed, _ = packed_attention(
        attention,
        query,
        key,
        value,
        dropout=dropout,
        scaling=attention.scaling,
        row_layout=row_layout,
        sliding_window=window,
    )
    return mixed.reshape(len(states), -1)


def _feed_forward(block: Any, x: torch.Tensor) -> torch.Tensor:
    """Gated feed-forward block, [..., H]."""
    flat = x.reshape(-1, x.shape[-1])
    both = _together([block.gate_proj, block.up_proj], flat)
    down = layer_of(block.down_proj)
    if down is None:
        found = _together([block.down_proj], gated(both, _gate(block)))
    else:
        found = project_gated(both, _gate(block), down)
    return found.view(*x.shape[:-1], -1)


def _norm(norm: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """Root mean square norm, [..., H]."""
    found: torch.Tensor = _RmsNorm.apply(
        hidden_states, norm.weight, norm.variance_epsilon, compute_dtype(hidden_states)
    )
    return found


def _gate(block: Any) -> str:
    """Activation of a gated block: silu, gelu, or "" for one that is not computed here."""
    name = type(block.act_fn).__name__
    return "silu" if name in ("SiLU", "SiLUActivation") else "gelu" if name in GELU else ""


class _Rotate(torch.autograd.Function):  # type: ignore[misc]
    """Rotary position embeddings: x [T, heads, d]; cos and sin float32 [T, d / 2]."""

    @staticmethod
    def forward(ctx: Any, x: Any, cos: Any, sin: Any) -> Any:
        ctx.save_for_backward(cos, sin)
        return rotated(x, cos, sin, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        cos, sin = ctx.saved_tensors
        return rotated(upstream[0], cos, -sin, upstream[0].shape[1]), None, None


class _RmsNorm(torch.autograd.Function):  # type: ignore[misc]
    """weight * x / sqrt(mean(x^2) + epsilon) in `dtype`, computed in float32."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, epsilon: float, dtype: torch.dtype) -> Any:
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = scale.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        x, weight, scale = ctx.saved_tensors
        given, wide = upstream[0].float(), x.float()
        normed = wide * scale
        own = None
        if ctx.needs_input_grad[1]:
            own = (given * normed).flatten(0, -2).sum(0).to(weight.dtype)
        given = given * weight
        mean = (given * normed).mean(-1, keepdim=True)
        into = (given - normed.mul_(mean)).mul_(scale).to(x.dtype)
        return into, own, None, None
