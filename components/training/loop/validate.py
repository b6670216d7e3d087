"""Validation pass: `task.record` of every row, with the work shared among the ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from raypath.components.core.arrays import Array
from raypath.components.tasks.base import Task
from raypath.components.training.batches.epoch_plan import plan_validation
from raypath.components.training.batches.token_dataset import TokenRows
from raypath.components.training.runtime.process_group import ProcessGroup


def evaluate(
    task: Task, model: torch.nn.Module, rows: TokenRows, group: ProcessGroup, budget: int, pad: int, bf16: bool
) -> Array:
    """Record every row: float32 [N, task.outputs] in the order of the rows, the same on every rank.

    model: what `task.module` returned. budget: tokens a batch, including padding if there is any. Random draws of a
    task (masks) depend only on the rows, so that passes over the same rows are comparable.
    """
    found = torch.zeros((len(rows), task.outputs))
    plan = plan_validation(rows, budget, padded=task.padded)
    turns = -(-len(plan) // group.world_size)
    model.eval()
    with torch.inference_mode(not group.shard), torch.no_grad():
        for turn in range(turns):
            number = turn * group.world_size + group.rank
            # All ranks have to call a sharded model together; a rank without a batch left repeats the first.
            chosen = plan[number] if number < len(plan) else plan[0]
            made = rows.packed(chosen) if task.packed else rows.batch(chosen, pad)
            batch = task.inputs(made, np.random.default_rng([0, number]))
            moved = {name: value.to(group.device) for name, value in batch.items()}
            with torch.autocast(group.device.type, torch.bfloat16, enabled=bf16):
                recorded = task.record(forward(task, model, moved), moved)
            if number < len(plan):
                found[torch.from_numpy(chosen)] = recorded.float().cpu()
    model.train()
    return np.asarray(group.sum_tensor(found).numpy())


def forward(task: Task, model: Any, batch: dict[str, torch.Tensor]) -> Any:
    """Compute the model's outputs; rows with precomputed features go through the head alone."""
    if "features" in batch:
        return model(inputs_embeds=batch["features"][:, None]).logits
    return task.forward(model, batch)
