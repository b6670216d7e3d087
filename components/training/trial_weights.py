"""The weights of the best trial, used instead of training again: `tune` keeps them, `finetune` takes them.

They may be used where the course of the training is the same: the settings, rows, base model, seed, precision and
threads, all of which one digest names.
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
from raypath.components.training.params import FinetuneParams

if TYPE_CHECKING:
    from raypath.components.training.job import Metrics
    from raypath.components.training.loop.trainer import Training

BEST = "best"
"""The folder of the weights in the artifact that `tune` makes."""
_WEIGHTS, _FACTS = "model.safetensors", "kept.json"
_APART = frozenset({"threads", "precision", "checkpoint_seconds", "profile"})
"""Settings that the course does not depend on; threads and precision are given by themselves, as they are in use."""


def training_fingerprint(
    ctx: Context, params: FinetuneParams, metadata: ModelMetadata, folder: Path, parts: tuple[Dataset, Dataset]
) -> str:
    """A digest that two trainings share when they end in the same weights: `params` on `parts` (train, valid), from
    the base model in `folder`, as this step's context would have `finetune` run it."""
    facts = {
        "params": params.model_dump(mode="json", exclude=set(_APART)),
        "metadata": metadata.model_dump(mode="json"),
        "parts": [part.digest for part in parts],
        "base": weights_digest(folder),
        "seed": ctx.seed,
        "precision": "bf16" if uses_bf16(params.precision) else "fp32",
        # On a GPU their number changes nothing.
        "threads": 0 if ctx.gpus else params.threads_of(ctx.workers, params.workers),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def matching_weights(
    ctx: Context,
    best: Settings | None,
    params: FinetuneParams,
    metadata: ModelMetadata,
    folder: Path,
    parts: tuple[Dataset, Dataset],
) -> Path | None:
    """The weights in what `tune` found, where they come of the training that `finetune` is about to do; says so."""
    if (
        best is None
        or not best.training_fingerprint
        or best.training_fingerprint != training_fingerprint(ctx, params, metadata, folder, parts)
    ):
        return None
    kept = ctx.input(best) / BEST
    if not _intact(kept):
        return None
    ctx.log.info("the best trial of tune trained with these very settings: its weights are used")
    ctx.report(1, 1, "weights of the best trial")
    ctx.track.metrics({"reused": 1.0})
    return kept


def keep(folder: Path, training: Training, metrics: Metrics) -> None:
    """Write the trained weights that the model holds and their metrics, whole or not at all."""
    from safetensors.torch import save_file

    from raypath.components.training.runtime.process_group import full_tensor

    with new_folder(folder) as aside:
        save_file({name: full_tensor(weight) for name, weight in training.prepared.trained().items()}, aside / _WEIGHTS)
        facts = {"metrics": metrics, "execution": asdict(training.execution), "sha256": file_digest(aside / _WEIGHTS)}
        (aside / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


def load(folder: Path | None, training: Training) -> Metrics | None:
    """Put kept weights into the model; returns their metrics. None, and nothing changed, where there are none."""
    if folder is None or not _intact(folder):
        return None
    import torch
    from safetensors.torch import load_file

    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    if facts["execution"]["precision"] != training.execution.precision:
        # The step that compared the courses ran on another node than this training.
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
