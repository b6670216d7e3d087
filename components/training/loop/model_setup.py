"""From a base model to a module that is ready to be trained: head, frozen part, adapters, memory, processes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from raypath.components.core.errors import DataError
from raypath.components.core.files import write_atomically
from raypath.components.data.tokenizer import model_max_length
from raypath.components.models import lora as adapters
from raypath.components.models.bf16 import takes_bf16
from raypath.components.models.fast_bert import join_projections, read_first_token_only, replay_features
from raypath.components.models.freezing import freeze, freeze_encoder
from raypath.components.models.head_check import check_head
from raypath.components.tasks.base import Task
from raypath.components.training.batches.token_dataset import Rows
from raypath.components.training.params import TrainingParams
from raypath.components.training.runtime.memory import Fit, fit_memory
from raypath.components.training.runtime.process_group import Group, whole


class Prepared:
    """A model in training. `model` has the weights, `wrapped` is what is called.

    beside: trainings that share the memory, this one counted.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        params: TrainingParams,
        rows: Rows,
        group: Group,
        scratch: Path | None,
        beside: int = 1,
    ) -> None:
        self.group = group
        self.bf16 = takes_bf16(params.precision)
        self.model = task.build(str(folder), params.dropout)
        if not group.shard:  # FSDP2 moves it layer by layer: as a whole it need not fit the device
            self.model.to(group.device)
        check_rows(self.model, folder, rows, "train")
        if rows.features is None:
            freeze(self.model, params.frozen_layers)
            if task.auto == "AutoModelForSequenceClassification":
                read_first_token_only(self.model)
            join_projections(self.model)
        else:
            check_head(self.model)
            freeze_encoder(self.model)
            replay_features(self.model)
        self.fit = self._fitted(params, int(rows.lengths.max(initial=1)), scratch, beside)
        if self.fit.lora:
            adapters.adapt(self.model, self.fit.lora)
        if self.fit.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.wrapped = group.wrap(self.model)

    def save(self, folder: Path) -> None:
        """Write a plain transformers folder; every process has to call it, the first one writes."""
        apart = adapters.adapters(self.model, whole)
        adapters.merge(self.model)
        weights = {name: whole(weight) for name, weight in self.model.state_dict().items()}
        if self.group.first:
            self.model.save_pretrained(folder, state_dict=weights, safe_serialization=True)
            adapters.save(apart, folder)

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The weights that are learnt, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def _fitted(self, params: TrainingParams, longest: int, scratch: Path | None, beside: int) -> Fit:
        """How it fits in memory. Decided once and kept: a resumed run may find another amount of free memory."""
        kept = scratch / "memory.json" if scratch is not None else None
        if kept is not None and kept.exists():
            return Fit(**json.loads(kept.read_text(encoding="utf-8")))
        found = fit_memory(self.model, params, longest, self.bf16, self.group.ranks, beside)
        agreed = self._agreed(found)
        if kept is not None and self.group.first:
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(kept, json.dumps(asdict(agreed)))
        return agreed

    def _agreed(self, found: Fit) -> Fit:
        """What the first process found, for all of them."""
        mine = float(self.group.first)
        tokens, checkpointing, lora = self.group.sums(
            found.micro_tokens * mine, float(found.checkpointing) * mine, found.lora * mine
        )
        return Fit(round(tokens), checkpointing > 0, round(lora), found.line)


def check_rows(model: Any, folder: Path, rows: Rows, part: str) -> None:
    """Refuse rows of a part, train or valid, that the model would fail on deep inside. Raises DataError."""
    most, words = model_max_length(folder), int(getattr(model.config, "vocab_size", 0) or 0)
    have = int(rows.lengths.max(initial=0))
    if most is not None and have > most:
        what = f"a row of {part} has {have} tokens; the model takes {most}"
        raise DataError(what, fix=f"set -s preprocess.max_length={most} or less")
    known = rows.features is not None or not words or not len(rows.ids)
    if not known and not 0 <= rows.ids.min() <= rows.ids.max() < words:
        strange = f"token {rows.ids.max()}, and the model knows {words}"
        what = f"the rows of {part} hold {strange}: the tokenizer is another model's"
        raise DataError(what, fix="leave preprocess.tokenizer unset, or give a base with its own tokenizer")


def check_valid(task: Task, model: Any, folder: Path, train: Rows, valid: Rows) -> None:
    """Refuse a validation part that would fail at the first look at it. Raises DataError."""
    check_rows(model, folder, valid, "valid")
    if (train.features is None) != (valid.features is None):
        raise DataError("one of train and valid has features, the other not", fix="let `extract` make both")
    task.check_targets(valid.targets, "valid")


def facts(prepared: Prepared) -> dict[str, Any]:
    """What is recorded of a model in training."""
    return {
        "precision": "bf16" if prepared.bf16 else "fp32",
        "device": prepared.group.device.type,
        "ranks": prepared.group.ranks,
        "weights": sum(p.numel() for p in prepared.model.parameters()),
        "trained_weights": sum(p.numel() for p in prepared.trained().values()),
        "memory": prepared.fit.line or "as set",
    }
