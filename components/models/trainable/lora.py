"""LoRA adapters: train two low-rank matrices for each frozen one (Hu et al., 2021), with the library peft.

Adapters are injected in place and merged at the end, so that the result is an ordinary transformers folder. They are
also saved separately, for services that run several models on one base. Decoders: models/adapters.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.errors import ParamsError
from raypath.components.models.trainable.freezing import is_head
from raypath.components.models.trainable.quantized import quiet_bitsandbytes

FILE = "adapter.lora"
"""safetensors file: low-rank matrices of each adapted layer in float32; the metadata has the SHA-256 of its base
matrix."""
DOWN, UP = ".down", ".up"
CONV1D = "Conv1D"
"""Linear layer of GPT-2 and its kin, whose weight is transposed."""
Adapters = tuple[dict[str, Any], dict[str, str]]


@dataclass(frozen=True)
class LoraSettings:
    """Settings of adapters. alpha: their scale times the rank, 0 for twice the rank; dropout: of their inputs.

    dora: Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, 2024. rslora: Kalajdzievski, A Rank Stabilization
    Scaling Factor for Fine-Tuning with LoRA, 2023.
    """

    rank: int
    alpha: int = 0
    dropout: float = 0.0
    dora: bool = False
    rslora: bool = False

    @property
    def shape(self) -> tuple[float, ...]:
        """Values that the weights of adapters depend on: rank, alpha, dora and rslora."""
        return self.rank, self.alpha or 2 * self.rank, self.dora, self.rslora


def adapt(model: Any, settings: LoraSettings, head: bool = True) -> None:
    """Freeze the model and add adapters to its linear layers, except the head and those that are frozen.

    head: the head is trained in full. Raises ParamsError for a rank that no layer can have, and when peft is not
    installed.
    """
    quiet_bitsandbytes()
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ParamsError("finetune.lora needs the Python package peft", fix="pip install 'raypath[lora]'") from None
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    layers = {n: each for n, each in model.named_modules() if _adaptable(model, n, each, conv1d=not head)}
    _check_rank(settings.rank, [min(each.weight.shape) for each in layers.values()])
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        target_modules=list(layers),
        fan_in_fan_out=not head and any(type(module).__name__ == CONV1D for module in model.modules()),
    )
    inject_adapter_in_model(config, model)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name or (head and name in trained and is_head(model, name)))


def check_settings(lora: int, changed: Sequence[str]) -> None:
    """Raise ParamsError for settings of adapters without adapters. lora: rank; changed: names of those that are set."""
    if changed and not lora:
        what = f"finetune.{changed[0]} is a setting of adapters, and finetune.lora is 0"
        raise ParamsError(what, fix=f"set finetune.lora=16, or leave {' and '.join(changed)} out")


def _check_rank(rank: int, full: Sequence[int]) -> None:
    """Raise ParamsError for a rank above the full one of every layer. full: of each layer that is adapted."""
    if full and rank > max(full):
        what = f"finetune.lora={rank} is more than the full rank of every layer, {max(full)} at most"
        raise ParamsError(what, fix="set finetune.lora=16, or 0 to train all weights")


def adapters(model: Any, full_tensor: Callable[[Any], Any]) -> Adapters:
    """Collect the low-rank matrices by layer (NAME.down [rank, in], NAME.up [out, rank], scaled) and the digests of the
    base matrices; empty without adapters.

    full_tensor: gathers a weight that is sharded over processes. Adapters with DoRA are no product of two matrices:
    none are returned.
    """
    import torch

    weights: dict[str, Any] = {}
    bases: dict[str, str] = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and not any(module.use_dora.values()):
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


def halve_frozen(model: Any, plain: bool = False) -> None:
    """Keep the frozen matrices of adapted layers in bfloat16, in which they are multiplied anyway.

    plain: those of all linear layers but the head instead, of a model that is not trained.

    Those of layers side by side, such as the projections to queries, keys and values, are one below the other in
    memory, so that they are one matrix where they read the same input (models/decoder/projection.py).
    """
    import torch

    head = model.get_output_embeddings() if plain else None
    for module in model.modules():
        if plain:
            layers = [child for child in module.children() if type(child) is torch.nn.Linear and child is not head]
        else:
            layers = [child.get_base_layer() for child in module.children() if hasattr(child, "lora_A")]
        for width in dict.fromkeys(layer.weight.shape[1] for layer in layers):
            weights = [layer.weight for layer in layers if layer.weight.shape[1] == width]
            together = torch.cat([weight.data.to(torch.bfloat16) for weight in weights])
            for weight, part in zip(weights, together.split([len(weight) for weight in weights]), strict=True):
                weight.data = part


def _adaptable(model: Any, name: str, module: Any, conv1d: bool) -> bool:
    """Return True for linear layers of the model without its head that are not frozen."""
    import torch

    linear = isinstance(module, torch.nn.Linear) or (conv1d and type(module).__name__ == CONV1D)
    return linear and not is_head(model, name) and bool(module.weight.requires_grad)
