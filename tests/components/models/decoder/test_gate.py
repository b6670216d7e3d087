"""A gate and the linear layer after it: plain torch's outputs and gradients, without the gate's outputs in memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from raypath.components.models.decoder.gate import gated, project_gated
from raypath.components.models.decoder.projection import Layer

TOKENS, INNER, OUT, RANK = 13, 24, 10, 3


def _draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def _layer(adapted: bool, trained: bool) -> Layer:
    weight = _draw(1, OUT, INNER).detach().requires_grad_(trained)
    if not adapted:
        return Layer(weight, _draw(2, OUT))
    return Layer(weight, None, _draw(3, RANK, INNER), _draw(4, OUT, RANK), 0.5)


def _plain(both: torch.Tensor, name: str, layer: Layer) -> torch.Tensor:
    gate, up = both.chunk(2, dim=1)
    x = (functional.silu(gate) if name == "silu" else functional.gelu(gate, approximate="tanh")) * up
    out = functional.linear(x, layer.weight, layer.bias)
    return out if layer.down is None or layer.up is None else out + x @ layer.down.T @ layer.up.T * layer.scale


@pytest.mark.parametrize("name", ["silu", "gelu"])
@pytest.mark.parametrize(("adapted", "trained"), [(False, True), (True, False), (True, True)])
def test_outputs_and_gradients_are_those_of_plain_torch(name: str, adapted: bool, trained: bool) -> None:
    layer, both, upstream = _layer(adapted, trained), _draw(0, TOKENS, 2 * INNER), _draw(5, TOKENS, OUT).detach()
    leaves = [both, *(each for each in layer.tensors if each is not None and each.requires_grad)]
    found, wanted = project_gated(both, name, layer), _plain(both, name, layer)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    pairs = zip(
        torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(wanted, leaves, upstream), strict=True
    )
    for own, plain in pairs:
        torch.testing.assert_close(own / plain.norm(), plain / plain.norm(), atol=1e-6, rtol=0)


def test_the_outputs_of_the_gate_are_not_kept() -> None:
    layer, both, kept = _layer(False, True), _draw(0, TOKENS, 2 * INNER), []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        project_gated(both, "silu", layer)
    assert (TOKENS, 2 * INNER) in kept
    assert (TOKENS, INNER) not in kept


def test_frozen_inputs_get_no_gradient() -> None:
    layer, both = _layer(True, False), _draw(0, TOKENS, 2 * INNER).detach()
    project_gated(both, "silu", layer).sum().backward()
    assert layer.down is not None
    assert layer.down.grad is not None
    assert both.grad is None
    with pytest.raises(RuntimeError, match="does not require grad"):
        gated(both, "silu").sum().backward()
