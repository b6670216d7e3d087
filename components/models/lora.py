"""LoRA: train two thin matrices beside each frozen one (Hu et al., 2021), by the library peft.

Adapters are put into the model in place and merged into its matrices at the end, so what is saved is an ordinary
transformers folder. Beside it they are kept by themselves, for a service that holds several models on one base.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raypath.components.core.errors import ParamsError
from raypath.components.models.freezing import is_head

FILE = "adapter.lora"
"""safetensors: for each adapted layer its thin matrices in float32; the metadata has the SHA-256 of its base matrix."""
DOWN, UP = ".down", ".up"
Adapters = tuple[dict[str, Any], dict[str, str]]


def adapt(model: Any, rank: int) -> None:
    """Freeze the encoder and put adapters of this rank beside its linear layers; the head stays trained whole.

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
    """The thin matrices by layer (NAME.down [rank, in], NAME.up [out, rank], LoRA's scale in it), and the digests of
    the layers' base matrices; nothing without adapters. full_tensor: gathers a weight that is sliced over processes."""
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
    """Write adapter.lora; nothing where there are none."""
    from safetensors.torch import save_file

    weights, bases = found
    if weights:
        save_file(weights, folder / FILE, metadata={"format": "pt", **bases})


def merge(model: Any) -> None:
    """Put what the adapters learnt into the matrices, and take the adapters out."""
    adapted = [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_A")]
    for name, module in adapted:
        module.merge()
        above, _, own = name.rpartition(".")
        setattr(model.get_submodule(above), own, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _adaptable(model: Any, name: str, module: Any) -> bool:
    """Linear layers of the encoder that were not frozen by hand."""
    import torch

    return isinstance(module, torch.nn.Linear) and not is_head(model, name) and module.weight.requires_grad
