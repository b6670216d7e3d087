"""Gates of feed-forward blocks, activation(gate) * up, and the linear layer after them.

A linear layer keeps its input for the gradient of its weights. A gate's outputs are computed anew instead: one product
of each value, and half as much memory as the gate itself keeps, 79 MiB in 856 tokens of SmolLM2-135M.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from raypath.components.models.decoder.projection import Layer, gradients_of, outputs_of


def gated(both: torch.Tensor, name: str) -> torch.Tensor:
    """Return activation(gate) * up, [T, I]. both [T, 2 I]: gate and up. name: silu, or gelu by tanh."""
    found: torch.Tensor = _Gated.apply(both, name)
    return found


def project_gated(both: torch.Tensor, name: str, layer: Layer) -> torch.Tensor:
    """Return the outputs of a linear layer of `gated`, [T, out], in the dtype of `both`."""
    found: torch.Tensor = _ProjectGated.apply(both, name, layer.scale, *layer.tensors)
    return found


class _Gated(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, both: Any, name: str) -> Any:
        ctx.save_for_backward(both)
        ctx.name = name
        gate, up = both.chunk(2, dim=1)
        return _activated(gate, name).mul_(up)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (both,) = ctx.saved_tensors
        return _gradient(upstream[0], both, _activated(both.chunk(2, dim=1)[0], ctx.name), ctx.name), None


class _ProjectGated(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, both: Any, name: str, scale: float, *tensors: Any) -> Any:
        ctx.name, ctx.scale = name, scale
        gate, up = both.chunk(2, dim=1)
        out, kept = outputs_of(_activated(gate, name).mul_(up), (scale,), tensors)
        ctx.save_for_backward(both, *kept, *tensors)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        both, inner, low, block, *tensors = ctx.saved_tensors
        gate, up = both.chunk(2, dim=1)
        activated, gradient = _activated(gate, ctx.name), upstream[0].to(both.dtype)
        needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[3:])
        into, found = gradients_of(gradient, activated * up, (inner, low, block), tensors, (ctx.scale,), needed)
        return (None if into is None else _gradient(into, both, activated, ctx.name), None, None, *found)


def _activated(gate: torch.Tensor, name: str) -> torch.Tensor:
    return functional.silu(gate) if name == "silu" else functional.gelu(gate, approximate="tanh")


def _gradient(given: torch.Tensor, both: torch.Tensor, activated: torch.Tensor, name: str) -> torch.Tensor:
    """Gradient of `both`, [T, 2 I], from that of the gate's outputs, [T, I]."""
    gate, up = both.chunk(2, dim=1)
    found = torch.empty_like(both)
    size = gate.shape[1]
    torch.mul(given, activated, out=found[:, size:])
    given = given * up
    found[:, :size] = (
        torch.ops.aten.silu_backward(given, gate)
        if name == "silu"
        else torch.ops.aten.gelu_backward(given, gate, approximate="tanh")
    )
    return found
