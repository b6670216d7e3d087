"""Folders for transformers and for peft."""

from __future__ import annotations

import json
from pathlib import Path

from raypath.components.cards.facts import public_name
from raypath.components.core.errors import DataError
from raypath.components.export.source import WEIGHTS, Source
from raypath.components.export.target import Progress, copy_files
from raypath.components.models.adapters import CONFIG, adapter_base
from raypath.components.models.adapters import WEIGHTS as ADAPTER
from raypath.components.models.metadata import METADATA_FILE, write_metadata


def write_transformers(source: Source, target: Path, progress: Progress) -> None:
    """Write a transformers folder: configuration, weights with adapters merged, tokenizer and chat template.

    What a registered version has beside them, such as its signature, its metrics and the texts that check it, is left
    out. Merged weights are stored in the type of the base's.
    """
    if source.is_adapter:
        import torch

        model = source.model.to(getattr(torch, _stored_type(adapter_base(source.folder))))
        size = sum(weight.nbytes for weight in model.state_dict().values())
        progress(0, size)
        model.save_pretrained(target)
        copy_files(source.files(), target, lambda *_: None)
        progress(size, size)
    else:
        copy_files(source.files("config.json", "generation_config.json", *WEIGHTS), target, progress)
    if source.metadata is not None:
        # The base is merged, so that its folder on this machine is of no use to anybody.
        base = public_name(source.metadata.base)
        write_metadata(target, source.metadata.model_copy(update={"base": base, "base_digest": ""}))


def write_adapter(source: Source, target: Path, progress: Progress) -> None:
    """Write a LoRA adapter alone, with its tokenizer and chat template. Raises DataError for a model without one."""
    if not source.is_adapter:
        fix = "use --to hf, or train with -s finetune.lora=16"
        raise DataError(f"{source.folder} has no LoRA adapter of its own; its weights are complete", fix=fix)
    copy_files(source.files(CONFIG, ADAPTER, METADATA_FILE), target, progress)


def _stored_type(base: Path) -> str:
    """Return the type of the weights of a model folder, such as bfloat16."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")
