"""What of a model is trained, and how fast."""

from __future__ import annotations

from typing import Any

import torch

from raypath.components.core.errors import DataError
from raypath.components.training.params import TrainingParams


def freeze(model: torch.nn.Module, layers: int) -> None:
    """Keep the embeddings and the lowest `layers` encoder layers as they are; nothing for -1.

    Raises DataError when the encoder has fewer layers.
    """
    if layers < 0:
        return
    base = getattr(model, getattr(model, "base_model_prefix", ""), model)
    getattr(base, "embeddings", model.get_input_embeddings()).requires_grad_(False)
    stacks = [m for m in base.modules() if isinstance(m, torch.nn.ModuleList)]
    if not layers:
        return
    if not stacks or layers > len(stacks[0]):
        have = len(stacks[0]) if stacks else 0
        raise DataError(f"frozen_layers={layers}, but the model has {have} layers", fix="lower finetune.frozen_layers")
    for layer in stacks[0][:layers]:
        layer.requires_grad_(False)


def freeze_encoder(model: torch.nn.Module) -> None:
    """Keep all but the head as it is."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(is_head(model, name))


def is_head(model: torch.nn.Module, name: str) -> bool:
    """Whether a module or weight belongs to the head.

    A pooler comes untrained with encoders of sentences, so it learns as fast as the head that it feeds.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return not name.startswith(prefix) or ".pooler" in name


def groups(model: torch.nn.Module, params: TrainingParams) -> list[dict[str, Any]]:
    """AdamW's groups: encoder and head, each with and without decay. `peak` is the group's top learning rate."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = []
    for head in (False, True):
        for matrix in (False, True):
            chosen = [p for n, p in trained if is_head(model, n) == head]
            chosen = [p for p in chosen if (p.ndim > 1) == matrix]
            if chosen:
                rate = params.lr * (params.head_factor if head else 1.0)
                decay = params.weight_decay if matrix else 0.0
                groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    return groups


def set_rates(optimizer: torch.optim.Optimizer, params: TrainingParams, step: int, steps: int) -> float:
    """Straight up over the warm-up, straight down to 0 at `steps`. Returns the encoder's rate."""
    warm = max(1, round(params.warmup * steps))
    scale = min((step + 1) / warm, (steps - step) / max(1, steps - warm + 1))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
    return params.lr * scale
