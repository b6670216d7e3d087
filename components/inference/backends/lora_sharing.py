"""LoRA adapters of several models on one base: the base weights are kept in memory once, each model adds its own
low-rank matrices.

A model trained with adapters is an ordinary folder with merged weights, plus adapter.lora, a safetensors file with the
low-rank matrices and the digest of each base matrix. The base matrix is the merged one minus the product of the
low-rank ones; models whose digests agree share it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from raypath.components.core.errors import DataError
from raypath.components.inference.backends.weight_sharing import WeightTable
from raypath.components.models.trainable.lora import DOWN, FILE, UP


class Adapted(nn.Module):  # type: ignore[misc]
    """Linear layer with a LoRA adapter: base(x) + x down' up'. down [rank, in], up [out, rank], scale included."""

    def __init__(self, base: nn.Linear, down: torch.Tensor, up: torch.Tensor) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Parameter(down, False), nn.Parameter(up, False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """states [..., in] -> [..., out]."""
        return self.base(states) + nn.functional.linear(nn.functional.linear(states, self.down), self.up)


def attach(model: Any, folder: Path, weights: WeightTable) -> bool:
    """Split the merged weights of a model opened from `folder` into shared base weights and adapters.

    Returns True if the model has adapters. Raises DataError for a file that does not belong to the model.
    """
    if not (folder / FILE).is_file():
        return False
    try:
        with safe_open(folder / FILE, "pt") as file:
            for name, digest in (file.metadata() or {}).items():
                if name != "format":
                    down, up = file.get_tensor(name + DOWN), file.get_tensor(name + UP)
                    _replace(model, name, digest, down, up, folder, weights)
    except (SafetensorError, AttributeError, KeyError) as error:
        raise DataError(f"{folder / FILE} does not fit its model ({error})", fix="register it again") from None
    return True


def _replace(
    model: Any, name: str, digest: str, down: torch.Tensor, up: torch.Tensor, folder: Path, weights: WeightTable
) -> None:
    layer = model.get_submodule(name)
    weight = layer.weight

    def base() -> nn.Parameter:
        # Read from the file: the open model may have a lower precision than the adapters were merged in.
        merged = _stored(folder, f"{name}.weight")
        return nn.Parameter((merged - up @ down).to(weight), False)

    layer.weight = weights.get_or_create((digest, weight.dtype, tuple(weight.shape), weight.device), base)
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, Adapted(layer, down.to(weight), up.to(weight)))


def _stored(folder: Path, name: str) -> torch.Tensor:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118 - it is no dict
                return file.get_tensor(name).float()
    raise KeyError(name)
