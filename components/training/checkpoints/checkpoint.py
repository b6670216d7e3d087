"""Checkpoints with all that resuming needs: weights, optimizer, position. No pickle.

A checkpoint is a folder written aside, flushed, and renamed; its manifest holds a SHA-256 of every file. One that
was cut short or altered is passed over for the one before it.
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
"""Checkpoints kept: the last, and the one before in case the last is damaged."""
MANIFEST = "manifest.json"
State = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """Trained weights and optimizer state, whole and on the CPU; `groups` are the optimizer's settings."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    groups: list[dict[str, Any]]


def snapshot(model: torch.nn.Module, optimizer: torch.optim.Optimizer, keep: bool = True) -> Snapshot:
    """What is to be saved. Every process of a sharded model has to call it, and all but one keep nothing of it."""
    full = optimizer.state_dict()
    # Frozen weights are the base model's own; writing them again would double the time a checkpoint takes.
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    states = ((f"{n}.{name}", value) for n, entry in full["state"].items() for name, value in entry.items())
    return Snapshot(gathered(trained, keep), gathered(states, keep), full["param_groups"])


def gathered(tensors: Iterable[tuple[str, torch.Tensor]], keep: bool) -> dict[str, torch.Tensor]:
    """Whole tensors, one after the other; who keeps none holds but one at a time."""
    kept = {}
    for name, tensor in tensors:
        found = full_tensor(tensor)
        if keep:
            kept[name] = found
    return kept


def save(folder: Path, step: int, made: Snapshot, state: State) -> Path:
    """Write `folder`/step-N. state: plain values for JSON. Raises StoreError when the disk is full."""
    final = folder / name_of(step)
    try:
        with new_folder(final) as aside:
            save_file(made.weights, aside / "model.safetensors")
            save_file(made.optimizer, aside / "optimizer.safetensors")
            (aside / "state.json").write_text(json.dumps({**state, "groups": made.groups}), encoding="utf-8")
            sums = {path.name: file_digest(path) for path in sorted(aside.iterdir())}
            (aside / MANIFEST).write_text(json.dumps(sums), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise StoreError(f"no room for a checkpoint in {folder}", fix="free room, then run again") from None
        raise
    for old in every(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all as they were written."""
    return next((path for path in reversed(every(folder)) if is_intact(path)), None)


def load(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Put a checkpoint into the model and the optimizer; returns its plain state."""
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
    """Put the weights of a checkpoint into the model."""
    found = load_file(path / "model.safetensors")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in found:
                weight.copy_(shard_like(found[name], weight))


def state_of(path: Path) -> State:
    """The plain state of a checkpoint."""
    state: State = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return state


def is_intact(path: Path) -> bool:
    """Whether all files of a checkpoint are as they were written."""
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return all(file_digest(path / name) == digest for name, digest in sums.items())
    except (OSError, ValueError):
        return False


def every(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, the newest last."""
    return sorted(folder.glob("step-*"))


def name_of(step: int) -> str:
    """The folder of the checkpoint after a step."""
    return f"step-{step:08d}"
