"""Weights of a decoder as constants of OpenVINO: as they are stored, or in 8 bits with a scale for each output."""

from __future__ import annotations

from typing import Any

import numpy as np

LEVELS = 127
"""Largest value of a weight in 8 bits."""


class Weights:
    """Constants of OpenVINO from the state dict of a model.

    The constants share the memory of the state dict, and `keep` holds it: it has to live as long as the graph.
    """

    def __init__(self, state: dict[str, Any], int8: bool) -> None:
        self._state, self._int8 = state, int8
        self.keep: list[Any] = []

    def has(self, name: str) -> bool:
        """Return True for a weight of the model."""
        return name in self._state

    def plain(self, name: str) -> Any:
        """Return a weight as a node of float32, which OpenVINO folds into its precision."""
        import torch
        from openvino import Shape, Tensor, Type, opset13

        weight = self._state[name].detach().contiguous()
        if weight.dtype in (torch.bfloat16, torch.float16):
            kind = Type.bf16 if weight.dtype == torch.bfloat16 else Type.f16
            stored = weight.view(torch.int16).numpy().view(np.uint16)
            tensor = Tensor(stored, Shape(list(weight.shape)), kind)
            self.keep += [weight, stored, tensor]
            return opset13.convert(opset13.constant(tensor, shared_memory=True), Type.f32)
        return opset13.constant(weight.float().numpy())

    def matrix(self, name: str) -> Any:
        """Return the weight of a layer, [out, in], as a node of float32; in 8 bits if these weights are."""
        if not self._int8:
            return self.plain(name)
        from openvino import Type, opset13

        integers, scales = quantize(self._state[name])
        self.keep.append(integers)
        return opset13.multiply(opset13.convert(opset13.constant(integers), Type.f32), opset13.constant(scales))


def quantize(weight: Any) -> tuple[Any, Any]:
    """Round a matrix [out, in] to int8, symmetrically, with a scale float32 [out, 1] for each output."""
    import torch

    values = weight.detach().float()
    scales = values.abs().amax(dim=1, keepdim=True) / LEVELS
    scales[scales == 0] = 1
    integers = (values / scales).round_().clamp_(-LEVELS, LEVELS).to(torch.int8)
    return integers.numpy(), scales.numpy()
