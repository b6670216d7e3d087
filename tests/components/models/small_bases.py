"""A folder of a base model, and an encoder with a head, both without weights that matter."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from raypath.components.models import base_models


def write_base(place: Path, **files: str) -> Path:
    """A folder of a base model; files by name, with a dot for __."""
    every = {"config__json": '{"model_type": "bert"}', "model__safetensors": "", "vocab__txt": ""} | files
    for name, text in every.items():
        (place / name.replace("__", ".")).write_text(text)
    return place


class Encoder(torch.nn.Module):
    """An encoder with three layers and a head."""

    base_model_prefix = "bert"

    def __init__(self, stacks: bool = True) -> None:
        super().__init__()
        self.bert = torch.nn.Module()
        self.bert.embeddings = torch.nn.Embedding(2, 2)
        self.bert.pooler = torch.nn.Linear(1, 1)
        if stacks:
            self.bert.layer = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(3))
        self.classifier = torch.nn.Linear(1, 1)
        self.config = SimpleNamespace(model_type="gpt2")

    @property
    def base_model(self) -> torch.nn.Module:
        return self.bert

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.bert.embeddings

    def trained(self) -> list[str]:
        """Modules that are trained."""
        names = (name.rpartition(".")[0] for name, weight in self.named_parameters() if weight.requires_grad)
        return list(dict.fromkeys(names))


def padding_of(**tokens: Any) -> Any:
    config = SimpleNamespace(**tokens)
    base_models._set_padding(config, "BASE")
    return config.pad_token_id
