"""LoRA adapters: train two low-rank matrices for each frozen one (Hu et al., 2021), with the library peft.

Adapters are injected in place and merged at the end, so that the result is an ordinary transformers folder. They are
also saved separately, for services that run several models on one base.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raypath.components.core.errors import ParamsError
from raypath.components.models.freezing import is_head

FILE = "adapter.lora"
"""safetensors file: low-rank matrices of each adapted layer in float32; the metadata has the SHA-256 of its base
matrix."""
DOWN, UP = ".down", ".up"
Adapters = tuple[dict[str, Any], dict[str, str]]


def adapt(model: Any, rank: int) -> None:
    """Freeze the encoder and add adapters of this rank to its linear layers; the head is trained in full.

    Raises ParamsError when peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ParamsError("finetune.lora needs the Python package peft", fix="pip install 'raypath[lora]'") from None
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    linear = [name for name, module in model.named_modules() if _adaptable(model, name, module)]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear), model)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name or (name in trained and is_head(model, name)))


def adapters(model: Any, full_tensor: Callable[[Any], Any]) -> Adapters:
    """Collect the low-rank matrices by layer (NAME.down [rank, in], NAME.up [out, rank], scaled) and the digests of the
    base matrices; empty without adapters.

    full_tensor: gathers a weight that is sharded over processes.
    """
    import torch

    weights: dict[str, Any] = {}
    bases: dict[str, str] = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            (key,) = module.lora_A
            weights[name + DOWN] = full_tensor(module.lora_A[key].weight).detach().float().cpu().contiguous()
            up = full_tensor(module.lora_B[key].weight).detach().float() * module.scaling[key]
            weights[name + UP] = up.cpu().contiguous()
            base = full_tensor(module.get_base_layer().weight).detach().float().cpu().contiguous()
            bases[name] = hashlib.sha256(base.view(-1).view(torch.uint8).numpy()).hexdigest()
    return weights, bases


def save(found: Adapters, folder: Path) -> None:
    """Write adapter.lora, unless there are no adapters."""
    from safetensors.torch import save_file

    weights, bases = found
    if weights:
        save_file(weights, folder / FILE, metadata={"format": "pt", **bases})


def merge(model: Any) -> None:
    """Merge the adapters into the base matrices and remove them."""
    adapted = [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_A")]
    for name, module in adapted:
        module.merge()
        above, _, own = name.rpartition(".")
        setattr(model.get_submodule(above), own, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _adaptable(model: Any, name: str, module: Any) -> bool:
    """Return True for linear layers of the encoder that are not frozen."""
    import torch

    return isinstance(module, torch.nn.Linear) and not is_head(model, name) and module.weight.requires_grad
