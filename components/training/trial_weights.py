"""Weights of the best trial, used instead of training again: `tune` keeps them, `finetune` takes them.

They are used if the training fingerprint is the same: a digest of settings, rows, base model, seed, precision and
threads.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.artifacts import Dataset, Settings
from raypath.components.core.context import Context
from raypath.components.core.files import file_digest, new_folder
from raypath.components.models.base_models import weights_digest
from raypath.components.models.bf16 import uses_bf16
from raypath.components.models.metadata import ModelMetadata
from raypath.components.training.params import ResolvedParams

if TYPE_CHECKING:
    from raypath.components.training.job import Metrics
    from raypath.components.training.loop.trainer import Training

BEST = "best"
"""Folder of the weights in the artifact of `tune`."""
_WEIGHTS, _FACTS = "model.safetensors", "kept.json"
_APART = frozenset({"threads", "precision", "checkpoint_seconds", "profile", "minutes"})
"""Settings left out of the fingerprint; threads and precision enter as resolved values."""


def training_fingerprint(
    ctx: Context, params: ResolvedParams, metadata: ModelMetadata, folder: Path, splits: tuple[Dataset, Dataset]
) -> str:
    """Digest of everything that determines the final weights: two trainings with the same digest end with equal
    weights. `params` on `splits` (train, valid), from the base model in `folder`, as `finetune` would run in this
    context."""
    facts = {
        "params": params.model_dump(mode="json", exclude=set(_APART)),
        "metadata": metadata.model_dump(mode="json"),
        "splits": [split.digest for split in splits],
        "base": weights_digest(folder),
        "seed": ctx.seed,
        "precision": "bf16" if uses_bf16(params.precision) else "fp32",
        # On a GPU the number of threads does not matter.
        "threads": 0 if ctx.gpus else params.threads_of(ctx.workers, params.workers),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def matching_weights(
    ctx: Context,
    best: Settings | None,
    params: ResolvedParams,
    metadata: ModelMetadata,
    folder: Path,
    splits: tuple[Dataset, Dataset],
) -> Path | None:
    """Return the weights that `tune` kept if they are those of the training that `finetune` is about to run; log it."""
    if (
        best is None
        or not best.training_fingerprint
        or best.training_fingerprint != training_fingerprint(ctx, params, metadata, folder, splits)
    ):
        return None
    kept = ctx.input(best) / BEST
    if not _intact(kept):
        return None
    ctx.log.info("the best trial of tune used the same settings: taking its weights")
    ctx.report(1, 1, "weights of the best trial")
    ctx.track.metrics({"reused": 1.0})
    return kept


def keep(folder: Path, training: Training, metrics: Metrics) -> None:
    """Write the model's trained weights and their metrics atomically."""
    from safetensors.torch import save_file

    from raypath.components.training.runtime.process_group import full_tensor

    with new_folder(folder) as temporary:
        save_file(
            {name: full_tensor(weight) for name, weight in training.prepared.trained().items()}, temporary / _WEIGHTS
        )
        facts = {
            "metrics": metrics,
            "execution": asdict(training.execution),
            "sha256": file_digest(temporary / _WEIGHTS),
        }
        (temporary / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


def load(folder: Path | None, training: Training) -> Metrics | None:
    """Load kept weights into the model; return their metrics. Return None, and change nothing, if there are none."""
    if folder is None or not _intact(folder):
        return None
    import torch
    from safetensors.torch import load_file

    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    if facts["execution"]["precision"] != training.execution.precision:
        # The fingerprint was computed on another node than this training runs on.
        return None
    found = load_file(folder / _WEIGHTS)
    trained = training.prepared.trained()
    if {n: w.shape for n, w in found.items()} != {n: w.shape for n, w in trained.items()}:
        return None
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(found[name])
    metrics: Metrics = facts["metrics"]
    return metrics


def _intact(folder: Path) -> bool:
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        return bool(file_digest(folder / _WEIGHTS) == facts["sha256"])
    except (OSError, ValueError):
        return False
