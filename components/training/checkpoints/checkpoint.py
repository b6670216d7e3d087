"""Checkpoints with everything needed to resume: weights, optimizer state and position; without pickle.

A checkpoint folder is written under a temporary name, flushed and renamed; its manifest has a SHA-256 of every file. An
incomplete or corrupt checkpoint is skipped in favor of the one before it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from raypath.components.core.errors import StoreError
from raypath.components.core.files import file_digest, is_disk_full, new_folder
from raypath.components.training.runtime.process_group import full_tensor, shard_like

KEEP = 2
"""Checkpoints kept: the last, and the one before in case the last is corrupt."""
MANIFEST = "manifest.json"
State = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """Full trained weights and optimizer state on the CPU; `groups` are the optimizer's param groups."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    groups: list[dict[str, Any]]


def snapshot(model: torch.nn.Module, optimizer: torch.optim.Optimizer, keep: bool = True) -> Snapshot:
    """Collect what a checkpoint saves. Every process of a sharded model has to call it; those with keep=False keep
    nothing."""
    full = optimizer.state_dict()
    # Frozen weights equal the base model's; writing them would double the time of a checkpoint.
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    states = ((f"{n}.{name}", value) for n, entry in full["state"].items() for name, value in entry.items())
    return Snapshot(gathered(trained, keep), gathered(states, keep), full["param_groups"])


def gathered(tensors: Iterable[tuple[str, torch.Tensor]], keep: bool) -> dict[str, torch.Tensor]:
    """Gather full tensors one by one; with keep=False only one is in memory at a time."""
    kept = {}
    for name, tensor in tensors:
        found = full_tensor(tensor)
        if keep:
            kept[name] = found
    return kept


def save(folder: Path, step: int, made: Snapshot, state: State) -> Path:
    """Write `folder`/step-N. state: JSON values. Raises StoreError when the disk is full."""
    final = folder / name_of(step)
    try:
        with new_folder(final) as temporary:
            save_file(made.weights, temporary / "model.safetensors")
            save_file(made.optimizer, temporary / "optimizer.safetensors")
            (temporary / "state.json").write_text(json.dumps({**state, "groups": made.groups}), encoding="utf-8")
            sums = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
            (temporary / MANIFEST).write_text(json.dumps(sums), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise StoreError(
                f"no free space for a checkpoint in {folder}", fix="free some space, then run again"
            ) from None
        raise
    for old in every(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest(folder: Path) -> Path | None:
    """Return the newest intact checkpoint."""
    return next((path for path in reversed(every(folder)) if is_intact(path)), None)


def load(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load a checkpoint into the model and the optimizer; return its state."""
    load_weights(path, model)
    state = state_of(path)
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(path / "optimizer.safetensors").items():
        number, _, name = key.partition(".")
        spread = shard_like(value, weights[int(number)]) if value.ndim else value
        entries.setdefault(int(number), {})[name] = spread
    optimizer.load_state_dict({"state": entries, "param_groups": state.pop("groups")})
    return state


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Load the weights of a checkpoint into the model."""
    found = load_file(path / "model.safetensors")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in found:
                weight.copy_(shard_like(found[name], weight))


def state_of(path: Path) -> State:
    """Read the state of a checkpoint."""
    state: State = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return state


def is_intact(path: Path) -> bool:
    """Verify the digests of all files of a checkpoint."""
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return all(file_digest(path / name) == digest for name, digest in sums.items())
    except (OSError, ValueError):
        return False


def every(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, intact or not, oldest first."""
    return sorted(folder.glob("step-*"))


def name_of(step: int) -> str:
    """Name the checkpoint folder of a step."""
    return f"step-{step:08d}"
