"""Checkpoints with all that resuming needs: weights, optimizer, random numbers, position. No pickle.

A checkpoint is a folder written aside, flushed, and renamed; its manifest holds a SHA-256 of every file. One that
was cut short or altered is passed over for the one before it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from components.core.errors import StoreError

KEEP = 2
"""Checkpoints kept: the last, and the one before in case the last is damaged."""
MANIFEST = "manifest.json"
State = dict[str, Any]


def save(folder: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: State) -> Path:
    """Write `folder`/step-N. state: plain values for JSON. Raises StoreError when the disk is full."""
    final = folder / f"step-{step:08d}"
    aside = folder / f".{final.name}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True, mode=0o700)
        save_file(_weights(model), aside / "model.safetensors")
        tensors, plain = _flat_optimizer(optimizer)
        save_file({**tensors, **_dice()}, aside / "optimizer.safetensors")
        (aside / "state.json").write_text(json.dumps({**state, "optimizer": plain}), encoding="utf-8")
        _seal(aside)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(aside, final)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no room for a checkpoint in {folder}", fix="free room, then run again") from None
        raise
    for old in _all(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all as they were written."""
    return next((path for path in reversed(_all(folder)) if _whole(path)), None)


def load(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Put a checkpoint into the model, the optimizer and torch's random numbers; returns its plain state."""
    model.load_state_dict(load_file(path / "model.safetensors"), strict=False)
    tensors = load_file(path / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("rng"))
    device_dice = tensors.pop("rng.cuda", None)
    if device_dice is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(device_dice)
    state: State = json.loads((path / "state.json").read_text(encoding="utf-8"))
    optimizer.load_state_dict(_full_optimizer(tensors, state.pop("optimizer")))
    return state


def _dice() -> dict[str, torch.Tensor]:
    found = {"rng": torch.get_rng_state()}
    return found | {"rng.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else found


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    # Frozen weights are the base model's own; writing them again would double the time a checkpoint takes.
    return {n: p.detach().contiguous().cpu() for n, p in model.named_parameters() if p.requires_grad}


def _flat_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], State]:
    full = optimizer.state_dict()
    tensors = {
        f"{number}.{name}": value.detach().contiguous().cpu()
        for number, entry in full["state"].items()
        for name, value in entry.items()
    }
    return tensors, {"groups": full["param_groups"]}


def _full_optimizer(tensors: dict[str, torch.Tensor], plain: State) -> State:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    return {"state": state, "param_groups": plain["groups"]}


def _seal(folder: Path) -> None:
    sums = {}
    for path in sorted(folder.iterdir()):
        sums[path.name] = _sum(path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    (folder / MANIFEST).write_text(json.dumps(sums), encoding="utf-8")


def _whole(path: Path) -> bool:
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return all(_sum(path / name) == digest for name, digest in sums.items())
    except (OSError, ValueError):
        return False


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))
