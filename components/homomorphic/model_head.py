"""Head of a model folder, and the digest of the encoder below it.

A model is a classifier of transformers whose last layer is linear. Its features are what that layer reads: for a model
of few rows the mean state of all tokens of its frozen base, for others what training made of the first token's state.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.homomorphic.encrypted_head import EncryptedHead
from raypath.components.models.heads.stored_head import SEQUENCE, stored_weights
from raypath.components.models.metadata import read_metadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import task_type

HEADS = ("classifier.out_proj", "classifier")
"""Names of the last linear layer."""


def read_head(folder: Path) -> EncryptedHead:
    """Return the head of a model folder. Raises DataError for a model without a linear one."""
    reason = unsupported_reason(folder)
    if reason:
        raise DataError(f"the model supports no encrypted predictions: {reason}", fix="give a classifier")
    name = head_name(folder)
    found = {key: _tensor(path, key) for key, path in stored_weights(folder) if key.startswith(f"{name}.")}
    return EncryptedHead(found[f"{name}.weight"].double().numpy(), found[f"{name}.bias"].double().numpy())


def unsupported_reason(folder: Path) -> str:
    """Return why a model supports no encrypted predictions, "" if it does."""
    metadata = read_metadata(folder)
    task = task_type(metadata.task, metadata.label_kind)
    if task.auto != SEQUENCE or task.forward is not Task.forward or task.record is not Task.record:
        return f"the task {metadata.task} has no plain classification head"
    return "" if head_name(folder) else "its last layer is not linear, or has another name"


def head_name(folder: Path) -> str:
    """Return the name of the last linear layer of a stored classifier, "" if there is none."""
    names = {key for key, _ in stored_weights(folder)}
    return next((head for head in HEADS if {f"{head}.weight", f"{head}.bias"} <= names), "")


def encoder_digest(folder: Path) -> str:
    """SHA-256 of all weights of a model but those of its last layer, by name, shape and value in float32, and of its
    configuration without labels: what has to be equal for equal features."""
    head, digest = head_name(folder), hashlib.sha256()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = ("model_type", "hidden_act", "layer_norm_eps", "num_attention_heads", "num_hidden_layers")
    digest.update(json.dumps([config.get(name) for name in kept]).encode())
    for name, path in sorted(stored_weights(folder)):
        if not name.startswith(f"{head}."):
            values = _tensor(path, name).float().contiguous()
            digest.update(f"\n{name} {list(values.shape)}\n".encode())
            digest.update(values.numpy().data)
    return digest.hexdigest()


def _tensor(path: Path, name: str) -> Any:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.get_tensor(name)
