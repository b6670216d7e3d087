"""Low-rank matrices of an adapter folder, for the layers of an open model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from raypath.components.core.errors import DataError
from raypath.components.models.adapters import CONFIG, PREFIX, WEIGHTS

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PLAIN: dict[str, Any] = {
    **{"bias": "none", "use_dora": False, "lora_bias": False, "modules_to_save": None},
    **{"rank_pattern": {}, "alpha_pattern": {}, "layer_replication": None},
}
"""Settings of adapters that are low-rank products alone."""
_EXPERTS = ".experts."
_FIX = "register it as a model of its own, which is served merged"


class Pair(NamedTuple):
    """Matrices of a layer: down [rank, in], up [out, rank] with the scale."""

    down: torch.Tensor
    up: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        return torch.nn.functional.linear(torch.nn.functional.linear(x, self.down), self.up)


def why_merged(folder: Path) -> str:
    """Return why an adapter cannot be applied to rows, and has to be merged; "" if it can be applied."""
    config = _config(folder)
    changed = [name for name, plain in _PLAIN.items() if (config.get(name) or None) != (plain or None)]
    return f"it has {changed[0]}={config[changed[0]]}" if changed else ""


def read_adapter(folder: Path, model: Any) -> dict[str, Pair]:
    """Return the matrices of an adapter by the path of their layer, in the precision and on the device of the model.

    Raises DataError for an adapter that is more than low-rank products, or of other layers than the model has.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if why := why_merged(folder):
        raise DataError(f"the adapter is not applied to rows: {why}", fix=_FIX)
    config = _config(folder)
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder / WEIGHTS} cannot be read ({error})", fix="register it again") from None
    found: dict[str, Pair] = {}
    for key in [key for key in weights if key.endswith(_DOWN)]:
        path = key.removeprefix(PREFIX).removesuffix(_DOWN)
        down, up = weights.pop(key), weights.pop(key.removesuffix(_DOWN) + _UP, None)
        _check_layer(model, path, down, up)
        found[path] = Pair(*(each.to(model.device, model.dtype) for each in (down, up.float() * scale)))
    if weights or not found:
        other = next(iter(weights), "nothing")
        raise DataError(f"the adapter has {other}, which is not a low-rank matrix of a layer", fix=_FIX)
    return found


def _config(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} has no {CONFIG}", fix="give a folder with adapters alone") from None
    return found


def _check_layer(model: Any, path: str, down: torch.Tensor, up: torch.Tensor | None) -> None:
    """Raise DataError for matrices that a layer cannot take row by row."""
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        raise DataError(f"the adapter has the layer {path}, and the base has none", fix="take its own base") from None
    if _EXPERTS in path:
        raise DataError(f"the adapter has the layer {path}, whose expert sees tokens of any row", fix=_FIX)
    wide = tuple(layer.weight.shape)
    if type(layer).__name__ == "Conv1D":  # GPT-2's linear layer, whose weight is transposed
        wide = wide[::-1]
    if up is None or (up.shape[0], down.shape[1]) != wide or down.shape[0] != up.shape[1]:
        raise DataError(f"the adapter's matrices of {path} have other shapes than the base", fix="take its own base")
