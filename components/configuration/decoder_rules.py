"""Rules for settings of the fine-tuning of a language model, by facts about its rows."""

from __future__ import annotations

import math

from raypath.components.configuration.row_tables import by_rows, step_tokens
from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Values
from raypath.components.training.params import FinetuneParams

LONGEST = 4_096
"""Highest maximum length that is chosen; `preprocess.max_length` may be higher."""
RATE, WIDTH = 2e-5, 4096
"""Learning rate of a model of this width; a narrower one takes a higher rate, as the usual recipes do."""
HIGHEST_RATE, HIGHEST_LORA_RATE = 1e-4, 5e-4
LORA_FACTOR = 10.0
"""Adapters take a rate this many times higher (Schulman et al., LoRA Without Regret, 2025)."""
EPOCHS = ((1_000, 3), (20_000, 2), (math.inf, 1))
"""Passes over train by the number of rows below which they apply."""
STEP_ROWS = ((1_000, 8), (10_000, 16), (math.inf, 64))
"""Rows of a step at their mean length, by the number of rows."""
STEP_TOKENS = (512, 65_536)
PREFERENCE_FACTOR = 0.1
"""Preferences take a rate this many times that of conversations, and a pass less over rows of twice the tokens; orpo,
whose loss includes that of fine-tuning on the chosen answers, takes that of conversations."""


def is_decoder(task: str) -> bool:
    """Return True for a task of language models that generate. Raises ParamsError for an unknown one."""
    from raypath.components.tasks.catalog import task_type

    return task_type(task).generates_text


def choose_length(lengths: Array, limit: int | None) -> int:
    """Return the maximum number of tokens of a row, a multiple of 16 that no row of the sample exceeds.

    A conversation is never cut, and a row that is longer is dropped. limit: most tokens of the base.
    """
    longest = int(lengths.max(initial=1))
    return min(max(32, 16 * math.ceil(longest / 16)), LONGEST, limit or LONGEST)


def decoder_values(params: FinetuneParams, rows: int, tokens: float, width: int) -> Values:
    """Return a value for each setting that may be chosen. tokens: mean of a row, or of an answer and its prompt; width:
    of the model, 0 for unknown."""
    answers = 2 if params.task == "preference" else 1
    tokens *= answers
    rate = min(RATE * WIDTH / (width or WIDTH), HIGHEST_RATE)
    if params.lora:
        rate = min(rate * LORA_FACTOR, HIGHEST_LORA_RATE)
    if answers == 2 and params.objective.preference != "orpo":
        rate *= PREFERENCE_FACTOR
    return {
        "batch_tokens": step_tokens(STEP_ROWS, rows, tokens, STEP_TOKENS),
        "epochs": max(1, int(by_rows(EPOCHS, rows)) - (answers - 1)),
        "method": "full",
        "lr": float(f"{rate:.1e}"),
        "warmup": 0.05,
        "patience": 2,
        "frozen_layers": -1,
    }
