"""Freezing of embeddings and encoder layers."""

from __future__ import annotations

import torch

from raypath.components.core.errors import DataError


def freeze(model: torch.nn.Module, layers: int) -> None:
    """Freeze the embeddings and the lowest `layers` encoder layers; -1 freezes nothing.

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
    """Freeze everything except the head."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(is_head(model, name))


def is_head(model: torch.nn.Module, name: str) -> bool:
    """Return True if a module or weight belongs to the head.

    A pooler is untrained in sentence encoders, so it learns as fast as the head that it feeds.
    """
    prefix = getattr(model, "base_model_prefix", "")
    if not hasattr(model, prefix) and getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return name.startswith("lm_head")  # a T5 has its encoder and decoder beside its head
    prefix = f"{prefix}."
    return not name.startswith(prefix) or ".pooler" in name
