"""LoRA adapters of tiny decoders, written by peft with random matrices: models that answer differently from their
base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def adapter_folder(folder: Path, base: Any, seed: int, *, targets: Sequence[str] = (), **settings: Any) -> Path:
    """An adapter of an open model in a folder, as finetune stores it. settings: of peft's LoraConfig."""
    import copy

    import torch
    from peft import LoraConfig, inject_adapter_in_model

    from raypath.components.models.adapters import save_adapter

    model = copy.deepcopy(base)
    names = {name.rpartition(".")[2] for name, layer in model.named_modules() if _is_linear(layer)} - {"lm_head"}
    more = {"fan_in_fan_out": any(type(layer).__name__ == "Conv1D" for layer in model.modules())}
    config = LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": sorted(targets or names)} | more | settings))
    inject_adapter_in_model(config, model)
    made = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=made) * 0.3
    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config = {"default": config}
    save_adapter(model, folder, lambda weight: weight, writes=True)
    return folder


def merged(base: Any, folder: Path) -> Any:
    """The same model, merged by peft."""
    import copy
    import warnings

    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(copy.deepcopy(base), folder).merge_and_unload().eval()


def _is_linear(layer: Any) -> bool:
    return type(layer).__name__ in ("Linear", "Conv1D")
