"""Settings of a private training that are "auto": by the number of rows and the user's own settings alone."""

from __future__ import annotations

from raypath.components.core.artifacts import Values
from raypath.components.core.params import AUTO
from raypath.components.training.params import FinetuneParams

MAX_LENGTH = 128
"""Tokens of a row, where `preprocess.max_length` is auto: the lengths of the texts are not looked at."""
HEAD_EPOCHS, LORA_EPOCHS = 40, 10
HEAD_RATE, LORA_RATE = 1e-2, 1e-3
"""Learning rates, of which a head takes `head_factor` times as much: clipped gradients are short."""


def private_method(params: FinetuneParams) -> str:
    """Return the method of a private training: adapters where they are set, else a head."""
    return ("full" if params.lora else "head") if params.method == AUTO else params.method


def private_values(params: FinetuneParams, base: str) -> Values:
    """Return values for the settings that are "auto". base: the default one."""
    head = private_method(params) == "head"
    values: Values = {
        "base": base,
        "epochs": HEAD_EPOCHS if head else LORA_EPOCHS,
        "lr": HEAD_RATE if head else LORA_RATE,
        "warmup": 0.0,
        "batch_tokens": 2048,
        "frozen_layers": 0,
        "patience": 0,
        "method": private_method(params),
    }
    return {name: value for name, value in values.items() if getattr(params, name) == AUTO}
