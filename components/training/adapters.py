"""LoRA: train two thin matrices beside each frozen one (Hu et al., 2021), by the library peft.

Adapters are put into the model in place and merged into its matrices at the end, so what is saved is an ordinary
transformers folder.
"""

from __future__ import annotations

from typing import Any

from components.core.errors import ParamsError
from components.training.optimising import is_head


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
