"""Parameter groups of AdamW, the learning rate schedule, clipping of gradients."""

from __future__ import annotations

from typing import Any

import torch

from raypath.components.models.trainable.freezing import is_head
from raypath.components.training.params import ResolvedParams


def groups(model: torch.nn.Module, params: ResolvedParams) -> list[dict[str, Any]]:
    """Build AdamW's param groups: encoder and head, each with and without decay. `peak` is a group's peak learning
    rate."""
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


def set_learning_rates(optimizer: torch.optim.Optimizer, params: ResolvedParams, step: int, steps: int) -> float:
    """Set linear warm-up and linear decay to 0 at `steps`. Return the encoder's rate."""
    warm = max(1, round(params.warmup * steps))
    scale = min((step + 1) / warm, (steps - step) / max(1, steps - warm + 1))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
    return params.lr * scale


def clip_gradients(model: torch.nn.Module, optimizer: torch.optim.Optimizer, most: float, sharded: bool) -> Any:
    """Make the next step take gradients with a norm of at most `most`; return their norm, a scalar tensor.

    They are scaled by the fused AdamW on its way through them, which saves reading and writing all of them once more; a
    model that is sharded has them scaled here.
    """
    if sharded:
        return torch.nn.utils.clip_grad_norm_(model.parameters(), most)
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    optimizer.grad_scale = (norm / most).clamp(min=1.0)  # AdamW divides by it
    return norm
