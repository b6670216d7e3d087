"""Prepare a base model for training: head, freezing, LoRA adapters, memory plan, process group."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from raypath.components.core.errors import DataError
from raypath.components.core.files import write_atomically
from raypath.components.data.tokenization.tokenizer import model_max_length
from raypath.components.models.adapters import (
    continue_adapter,
    is_adapter,
    is_nameable,
    save_adapter,
    stored_settings,
)
from raypath.components.models.bf16 import uses_bf16
from raypath.components.models.encoders.fast_bert import fuse_qkv, read_first_token_only, replay_features
from raypath.components.models.encoders.segments import add_segments
from raypath.components.models.heads.head_check import check_head
from raypath.components.models.heads.pooling_layer import append_pooling, pass_states
from raypath.components.models.trainable import lora as adapters
from raypath.components.models.trainable.freezing import freeze, freeze_encoder
from raypath.components.models.trainable.quantized import check_quantization, quantize, quantized_weights
from raypath.components.tasks.base import Task
from raypath.components.training.batches.token_dataset import TokenRows, longest_row
from raypath.components.training.params import FITTED, ResolvedParams
from raypath.components.training.runtime.memory import MemoryPlan, plan_memory
from raypath.components.training.runtime.process_group import ProcessGroup, full_tensor

EXPERTS = ".experts"
"""End of the name of a module with the experts of a mixture."""


class PreparedModel:
    """Model prepared for training. `model` has the weights, `wrapped` is the module to call, `module` what it wraps.

    concurrent_trials: trainings that share the memory, including this one.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        params: ResolvedParams,
        rows: TokenRows,
        group: ProcessGroup,
        scratch: Path | None,
        concurrent_trials: int,
    ) -> None:
        self.group, self.task, self.folder, self.params = group, task, folder, params
        self.bf16 = uses_bf16(params.precision)
        names = ("lora_alpha", "lora_dropout", "dora", "rslora")
        adapters.check_settings(params.lora, [name for name in names if getattr(params, name)])
        if params.load_in_4bit:
            check_quantization(params.lora, task.adapters_alone, params.shard)
        self.model = task.build(str(folder), params.dropout)
        self.weights = sum(weight.numel() for weight in self.model.parameters())
        add_segments(self.model, task.metadata.separator)
        check_rows(self.model, folder, rows, "train")
        if not rows.has_features:
            if params.method == "linear_probe":
                freeze_encoder(self.model)
            else:
                freeze(self.model, params.frozen_layers)
            if params.method in FITTED:
                append_pooling(self.model)
            if task.auto == "AutoModelForSequenceClassification":
                read_first_token_only(self.model)
            fuse_qkv(self.model)
        else:
            check_head(self.model)
            freeze_encoder(self.model)
            replay_features(self.model)
        if params.privacy.enabled:
            pass_states(self.model)
        self.memory_plan = self._fitted(params, longest_row(rows), scratch, concurrent_trials)
        if not group.shard and not self.memory_plan.load_in_4bit:
            # FSDP2 and quantization move it layer by layer: the full model need not fit the device.
            self.model.to(group.device)
        self.module = task.module(self.model, group.device)
        self.saves_adapter = bool(self.memory_plan.lora) and task.adapters_alone and is_nameable(task.metadata.base)
        self._adapt(self.model)
        if self.memory_plan.load_in_4bit:
            quantize(self.model, group.device, torch.bfloat16 if self.bf16 else torch.float32)
            self.model.to(group.device)
        elif self.memory_plan.lora and self.bf16 and self.saves_adapter and not group.shard:
            adapters.halve_frozen(self.model)  # FSDP2 wants weights of one type
        if self.memory_plan.checkpointing:
            # transformers renamed it after 5.20.
            enable = getattr(self.model, "activation_checkpointing_enable", self.model.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
        # A private training adds up gradients by row itself.
        self.wrapped = self.module if params.privacy.enabled else group.wrap(self.module)

    def _adapt(self, model: Any) -> None:
        """Add adapters, new ones or those of a folder with adapters alone; without LoRA those are merged."""
        params, folder = self.params, self.folder
        rank, head = self.memory_plan.lora, not self.task.adapters_alone
        settings = adapters.LoraSettings(rank, params.lora_alpha, params.lora_dropout, params.dora, params.rslora)
        if is_adapter(folder) and not rank:
            frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
            stored = stored_settings(folder)
            adapters.adapt(model, stored, head=head)
            continue_adapter(model, folder, stored)
            adapters.merge(model)
            for name, weight in model.named_parameters():
                weight.requires_grad_(name not in frozen)
        elif rank:
            adapters.adapt(model, settings, head=head)
            if is_adapter(folder):
                continue_adapter(model, folder, settings)

    def save(self, folder: Path) -> None:
        """Write a transformers folder, or the adapters alone; every process has to call it, rank 0 writes."""
        if self.saves_adapter:
            save_adapter(self.model, folder, full_tensor, self.group.is_rank_zero, self.task.metadata.base)
            return
        model = self._on_stored_base() if self.memory_plan.load_in_4bit else self.model
        apart = adapters.adapters(model, full_tensor)
        adapters.merge(model)
        weights = {name: full_tensor(weight) for name, weight in model.state_dict().items()}
        if self.group.is_rank_zero:
            model.save_pretrained(folder, state_dict=weights, safe_serialization=True)
            adapters.save(apart, folder)

    def _on_stored_base(self) -> Any:
        """Build the model with its adapters again, on the base as it is stored: 4 bits are not to be merged into."""
        model = self.task.build(str(self.folder), self.params.dropout)
        freeze(model, self.params.frozen_layers)
        self._adapt(model)
        with torch.no_grad():
            for name, weight in self.trained().items():
                model.get_parameter(name).copy_(weight)
        return model

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Trained weights by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def _fitted(self, params: ResolvedParams, longest: int, scratch: Path | None, concurrent_trials: int) -> MemoryPlan:
        """Plan memory once per run and store the plan: a resumed run may find a different amount of free memory."""
        kept = scratch / "memory.json" if scratch is not None else None
        if kept is not None and kept.exists():
            return MemoryPlan(**json.loads(kept.read_text(encoding="utf-8")))
        world, packed = self.group.world_size, self.task.packed
        found = plan_memory(self.model, params, longest, self.bf16, world, concurrent_trials, packed)
        agreed = self._agreed(found)
        if kept is not None and self.group.is_rank_zero:
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(kept, json.dumps(asdict(agreed)))
        return agreed

    def _agreed(self, found: MemoryPlan) -> MemoryPlan:
        """Broadcast the plan of rank 0."""
        mine = float(self.group.is_rank_zero)
        tokens, checkpointing, lora, load_in_4bit = self.group.sum(
            found.micro_tokens * mine, float(found.checkpointing) * mine, found.lora * mine, found.load_in_4bit * mine
        )
        return MemoryPlan(round(tokens), checkpointing > 0, round(lora), load_in_4bit > 0, found.summary)


def check_rows(model: Any, folder: Path, rows: TokenRows, split: str) -> None:
    """Raise DataError for rows of a split, train or valid, that the model cannot take."""
    most, words = model_max_length(folder), int(getattr(model.config, "vocab_size", 0) or 0)
    have = longest_row(rows)
    if most is not None and getattr(model.config, "is_encoder_decoder", False):
        most *= 2  # source and target, each of which `preprocess` has compared with the limit
    if most is not None and have > most:
        what = f"a row of {split} has {have} tokens; the model takes {most}"
        raise DataError(what, fix=f"set -s preprocess.max_length={most} or less")
    lowest, highest = rows.token_range
    known = rows.has_features or not words or lowest > highest
    if not known and not 0 <= lowest <= highest < words:
        what = f"rows of {split} have token {highest}, but the model's vocabulary has {words} tokens"
        raise DataError(what, fix="leave preprocess.tokenizer unset, or give a base with its own tokenizer")


def check_valid(task: Task, model: Any, folder: Path, train: TokenRows, valid: TokenRows) -> None:
    """Raise DataError for a validation split that would fail at the first validation pass."""
    check_rows(model, folder, valid, "valid")
    if train.has_features != valid.has_features:
        raise DataError("one of train and valid has features, the other not", fix="run `extract` on both")
    task.check_targets(valid.targets, "valid")


def remarks(prepared: PreparedModel) -> list[str]:
    """Return what is done otherwise than the settings and the docs say, one line each."""
    kind, found = prepared.model.config.model_type, []
    if prepared.memory_plan.summary:
        found.append(f"memory: {prepared.memory_plan.summary}")
    if not getattr(prepared.module, "packs", True):
        found.append(f"rows are padded to the longest of a batch: attention of a {kind} cannot be kept inside rows")
    if prepared.memory_plan.lora and any(name.endswith(EXPERTS) for name, _ in prepared.model.named_modules()):
        found.append(f"the experts of this {kind} have no adapters: transformers keeps them in one tensor")
    return found


def facts(prepared: PreparedModel) -> dict[str, Any]:
    """Facts about the prepared model, recorded in MLflow."""
    return {
        "precision": "bf16" if prepared.bf16 else "fp32",
        "device": prepared.group.device.type,
        "world_size": prepared.group.world_size,
        "weights": prepared.weights,
        "weights_in_4bit": quantized_weights(prepared.model),
        "trained_weights": sum(p.numel() for p in prepared.trained().values()),
        "memory": prepared.memory_plan.summary or "as set",
    }
