"""Linear layers that read the same input, as one matmul: weights in float32, products in bfloat16.

Autocast would convert the input once for each layer, keep a bfloat16 copy of all weights until the end of a step, and
compute the adapters of LoRA in matmuls of their own. Here weights are converted where they are used, forward and
backward, which takes less time than it takes to fetch a copy from memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Layer:
    """A linear layer: weight [out, in]; bias [out] or None; down [rank, in] and up [out, rank] of LoRA, or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    scale: float = 1.0

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """Weight, bias, down and up."""
        return self.weight, self.bias, self.down, self.up


Kept = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
"""Of the adapters of layers: products with `down` [T, ranks], and `down` and `up` of all layers as one matrix each."""


def layer_of(module: Any) -> Layer | None:
    """Describe a linear layer or one with an adapter of peft; None for what `project` does not compute."""
    if type(module) is torch.nn.Linear:
        return Layer(module.weight, module.bias)
    base: Any = getattr(module, "base_layer", None)
    if type(base) is not torch.nn.Linear or not hasattr(module, "lora_A"):
        return None
    names = list(module.lora_A)
    if len(names) != 1 or module.merged or module.disable_adapters or any(module.use_dora.values()):
        return None
    dropout = getattr(module.lora_dropout[names[0]], "p", 0.0)
    if dropout and module.training:
        return None
    down, up = module.lora_A[names[0]], module.lora_B[names[0]]
    if down.bias is not None or up.bias is not None:
        return None
    return Layer(base.weight, base.bias, down.weight, up.weight, float(module.scaling[names[0]]))


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """Return the dtype of products of x: that of autocast, or its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def project(x: torch.Tensor, layers: list[Layer], dtype: torch.dtype) -> torch.Tensor:
    """Outputs of layers side by side, [T, sum of out] in `dtype`. x [T, in]."""
    scales = tuple(layer.scale for layer in layers)
    found: torch.Tensor = _Project.apply(x, dtype, scales, *(each for layer in layers for each in layer.tensors))
    return found


class _Project(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any, dtype: torch.dtype, scales: tuple[float, ...], *tensors: Any) -> Any:
        ctx.scales, ctx.into = scales, x.dtype
        own = x.to(dtype)
        out, kept = outputs_of(own, scales, tensors)
        ctx.save_for_backward(own, *kept, *tensors)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        own, inner, low, block, *tensors = ctx.saved_tensors
        needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[3:])
        into, found = gradients_of(upstream[0].to(own.dtype), own, (inner, low, block), tensors, ctx.scales, needed)
        return (None if into is None else into.to(ctx.into), None, None, *found)


def outputs_of(x: torch.Tensor, scales: tuple[float, ...], tensors: Sequence[Any]) -> tuple[torch.Tensor, Kept]:
    """Return the outputs of layers in the dtype of x, [T, sum of out], and what their gradients need besides.

    x [T, in]. tensors: weight, bias, down and up of each layer, one layer after the other.
    """
    weights, biases, downs, ups = (tensors[n::4] for n in range(4))
    with torch.autocast(x.device.type, enabled=False):
        out = x @ joined(weights, x.dtype).T
        inner = low = block = None
        if any(down is not None for down in downs):
            low = joined([down for down in downs if down is not None], x.dtype)
            block = _block(weights, ups, scales, x.dtype)
            inner = x @ low.T  # [T, ranks]
            out.addmm_(inner, block.T)
        if any(bias is not None for bias in biases):
            out += torch.cat([_bias(w, b, x.dtype) for w, b in zip(weights, biases, strict=True)])
    return out, (inner, low, block)


def gradients_of(
    gradient: torch.Tensor,
    x: torch.Tensor,
    kept: Kept,
    tensors: Sequence[Any],
    scales: tuple[float, ...],
    needed: Sequence[bool],
) -> tuple[torch.Tensor | None, list[Any]]:
    """Return the gradients of x and of `tensors`; None where `needed`, for x and each of them, is false.

    gradient [T, sum of out], in the dtype of x.
    """
    (inner, low, block), wanted = kept, [needed[1 + n :: 4] for n in range(4)]
    weights, _, downs, _ = (tensors[n::4] for n in range(4))
    found: list[list[Any]] = [[None] * len(weights) for _ in range(4)]
    sizes = [len(weight) for weight in weights]
    with torch.autocast(gradient.device.type, enabled=False):
        into = gradient @ joined(weights, x.dtype) if needed[0] else None
        if inner is not None:
            given = gradient @ block  # [T, ranks]
            if into is not None:
                into.addmm_(given, low)
            found[2], found[3] = _adapters(given.T @ x, gradient.T @ inner, sizes, downs, scales)
        if any(wanted[0]):
            parts = (gradient.T @ x).split(sizes)
            found[0] = [p.to(w.dtype) if need else None for p, w, need in zip(parts, weights, wanted[0], strict=True)]
        if any(wanted[1]):
            sums = gradient.sum(0, dtype=torch.float32).split(sizes)
            found[1] = [s if need else None for s, need in zip(sums, wanted[1], strict=True)]
    return into, [found[kind][n] for n in range(len(weights)) for kind in range(4)]


def joined(weights: Any, dtype: torch.dtype) -> torch.Tensor:
    """Matrices one below the other in `dtype`; what is so in memory already is not copied."""
    if len(weights) == 1:
        return weights[0].to(dtype)
    if weights[0].dtype == dtype and _are_adjacent(weights):
        shape = sum(map(len, weights)), weights[0].shape[1]
        return torch.as_strided(weights[0], shape, (shape[1], 1))
    made = torch.empty(sum(map(len, weights)), weights[0].shape[1], dtype=dtype, device=weights[0].device)
    at = 0
    for weight in weights:
        made[at : at + len(weight)] = weight
        at += len(weight)
    return made


def _are_adjacent(weights: Any) -> bool:
    """Return True if each matrix begins in memory where the one before it ends, in one storage."""
    storage = weights[0].untyped_storage().data_ptr()
    at = weights[0].data_ptr()
    for weight in weights:
        inside = weight.is_contiguous() and weight.untyped_storage().data_ptr() == storage
        if not inside or weight.data_ptr() != at or weight.dtype != weights[0].dtype:
            return False
        at += weight.numel() * weight.element_size()
    return True


def _block(weights: Any, ups: Any, scales: tuple[float, ...], dtype: torch.dtype) -> torch.Tensor:
    """Matrices `up` times their scale on the diagonal, zeros beside them, [sum of out, sum of ranks]."""
    ranks = [0 if up is None else up.shape[1] for up in ups]
    made = torch.zeros(sum(map(len, weights)), sum(ranks), dtype=dtype, device=weights[0].device)
    row = column = 0
    for weight, up, scale, rank in zip(weights, ups, scales, ranks, strict=True):
        if up is not None:
            made[row : row + len(weight), column : column + rank] = up * scale
        row, column = row + len(weight), column + rank
    return made


def _adapters(down: Any, up: Any, sizes: list[int], downs: Any, scales: tuple[float, ...]) -> tuple[list[Any], ...]:
    """Gradients of each `down` and `up`, from those of all, [ranks, in] and [sum of out, ranks]."""
    found: tuple[list[Any], ...] = ([], [])
    row = column = 0
    for size, own, scale in zip(sizes, downs, scales, strict=True):
        rank = 0 if own is None else len(own)
        found[0].append(down[column : column + rank].float() if rank else None)
        found[1].append(up[row : row + size, column : column + rank].float() * scale if rank else None)
        row, column = row + size, column + rank
    return found


def _bias(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    return weight.new_zeros(len(weight), dtype=dtype) if bias is None else bias.to(dtype)
