"""Gradients by row, clipped: from one backward pass over a batch, without a gradient of each row in memory at a time.

Linear layers are all that a head or an adapter trains. The gradient of a row is the product of the layer's inputs and
of the gradients of its outputs over the row's tokens, which hooks record. The norm of all layers together gives the
factor by which a row is scaled, and a second product the sum of the scaled rows (Bu et al., Differentially Private
Optimization on Large Model at Small Cost, 2023).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from raypath.components.core.errors import ParamsError

ROUNDING = 1e-6
"""Relative error that a norm in float32 may have; rows are clipped to this much less."""


class RowGradients:
    """Recorder of the trained layers of a model. Raises ParamsError for a trained weight that is not of a linear
    layer."""

    def __init__(self, model: nn.Module) -> None:
        self.names: dict[nn.Module, str] = {}
        for name, module in model.named_modules():
            weights = [weight for weight in module.parameters(recurse=False) if weight.requires_grad]
            if not weights:
                continue
            # Without its weight, a bias alone is trained: the norm would have another formula.
            if not isinstance(module, nn.Linear) or not all(w.requires_grad for w in module.parameters(recurse=False)):
                what = f"differential privacy clips the gradients of linear layers; {name or 'the model'} is another"
                raise ParamsError(what, fix="set finetune.method=head, or finetune.lora=8 with another base")
            self.names[module] = name
            module.register_forward_hook(self._record)
        self._seen: dict[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        self._rows = 0

    def start(self, rows: int) -> None:
        """Begin a batch of `rows` rows: its forward and backward pass follow."""
        self._seen.clear()
        self._rows = rows

    def _record(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        if self._rows and output.requires_grad:
            inputs = args[0].detach()
            output.register_hook(lambda grad: self._add(module, inputs, grad))

    def _add(self, module: nn.Module, inputs: torch.Tensor, grad: torch.Tensor) -> None:
        if inputs.shape[0] != self._rows or inputs.ndim < 2:
            what = f"the layer {self.names[module]} of this base mixes rows: they have no gradients of their own"
            raise ParamsError(what, fix="set finetune.method=head, or give another base")
        shaped = (part.float().reshape(self._rows, -1, part.shape[-1]) for part in (inputs, grad.detach()))
        x, g = shaped  # [B, tokens, in], [B, tokens, out]
        self._seen[module].append((x, g))

    def clipped_sums(self, units: torch.Tensor, count: int, clip: float) -> dict[nn.Parameter, torch.Tensor]:
        """Return the sum over units of their gradients, each scaled to a norm of at most `clip`, by weight.

        units: unit of each row, int64 [B], below `count`; the gradient of a unit is the sum over its rows. A unit whose
        gradient is not finite adds nothing.
        """
        seen = {module: _joined(parts) for module, parts in self._seen.items()}
        squares = torch.zeros(count, device=units.device)
        for module, (x, g) in seen.items():
            squares += _squared_norms(x, g, units, count, module.bias is not None)
        norms = squares.sqrt()
        finite = torch.isfinite(norms)
        factors = torch.where(finite, (clip / (norms * (1 + ROUNDING))).clamp(max=1.0), 0.0)[units]  # [B]
        known = finite[units][:, None, None]
        sums: dict[nn.Parameter, torch.Tensor] = {}
        for module, (x, g) in seen.items():
            scaled = torch.where(known, g * factors[:, None, None], 0.0).flatten(0, 1)
            sums[module.weight] = scaled.T @ torch.where(known, x, 0.0).flatten(0, 1)
            if module.bias is not None:
                sums[module.bias] = scaled.sum(dim=0)
        self.start(0)
        return sums


def _joined(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Join the calls of a layer that is used several times in a model: they are further tokens of the rows."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([x for x, _ in parts], dim=1), torch.cat([g for _, g in parts], dim=1)


def _squared_norms(x: torch.Tensor, g: torch.Tensor, units: torch.Tensor, count: int, bias: bool) -> torch.Tensor:
    """Return the squared norm of each unit's gradient of one layer, [count]. x [B, tokens, in], g [B, tokens, out]."""
    if x.shape[1] == 1 and count == len(units):  # one token a row: the norm of a product of two vectors
        found = g.square().sum(dim=(1, 2)) * (x.square().sum(dim=(1, 2)) + float(bias))
        return torch.zeros_like(found).index_copy_(0, units, found)
    rows = torch.einsum("bto,bti->boi", g, x)
    if bias:
        rows = torch.cat([rows, g.sum(dim=1)[:, :, None]], dim=2)
    whole = torch.zeros(count, *rows.shape[1:], device=rows.device).index_add_(0, units, rows)
    return whole.square().sum(dim=(1, 2))
