"""LoRA adapters of several models on one base: the base's matrices are held once, each model adds its own thin ones.

A model that was trained with adapters is an ordinary folder whose matrices hold what they learnt. Beside it lies
adapter.lora (a safetensors file): the thin matrices, and the digest of each base matrix. So the base's matrix is what
the model's is less the product of its thin ones, and models whose digests agree share the first that was made of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from raypath.components.core.errors import DataError
from raypath.components.inference.backends import weight_sharing as sharing
from raypath.components.models.lora import DOWN, FILE, UP


class Adapted(nn.Module):  # type: ignore[misc]
    """base(x) + x down' up'. down [rank, in], up [out, rank], with LoRA's scale in it."""

    def __init__(self, base: nn.Linear, down: torch.Tensor, up: torch.Tensor) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Parameter(down, False), nn.Parameter(up, False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """states [..., in] -> [..., out]."""
        return self.base(states) + nn.functional.linear(nn.functional.linear(states, self.down), self.up)


def attach(model: Any, folder: Path) -> bool:
    """Take the adapters of a model that was opened from `folder` out of its matrices, and put them beside the base's.

    Returns whether it has any. Raises DataError for a file that does not belong to the model.
    """
    if not (folder / FILE).is_file():
        return False
    try:
        with safe_open(folder / FILE, "pt") as file:
            for name, digest in (file.metadata() or {}).items():
                if name != "format":
                    down, up = file.get_tensor(name + DOWN), file.get_tensor(name + UP)
                    _replace(model, name, digest, down, up, folder)
    except (SafetensorError, AttributeError, KeyError) as error:
        raise DataError(f"{folder / FILE} does not fit its model ({error})", fix="register it again") from None
    return True


def _replace(model: Any, name: str, digest: str, down: torch.Tensor, up: torch.Tensor, folder: Path) -> None:
    layer = model.get_submodule(name)
    weight = layer.weight

    def base() -> nn.Parameter:
        # From the file, for the model may hold it in fewer bits than the adapters were taken off in.
        whole = _stored(folder, f"{name}.weight") - up @ down
        return nn.Parameter(whole.to(weight), False)

    layer.weight = sharing.held((digest, weight.dtype, tuple(weight.shape), weight.device), base)
    above, _, own = name.rpartition(".")
    setattr(model.get_submodule(above), own, Adapted(layer, down.to(weight), up.to(weight)))


def _stored(folder: Path, name: str) -> torch.Tensor:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118 - it is no dict
                return file.get_tensor(name).float()
    raise KeyError(name)
