"""Language models: which tasks they are, the length of their rows, and the short training of a sample."""

from __future__ import annotations

import math

from raypath.components.configuration.decoder_rules import TASKS
from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Values

LONGEST = 4_096
"""Highest maximum length that is chosen; `preprocess.max_length` may be higher."""
SHORT: dict[str, Values] = {"sample://strikes": {"epochs": 1, "lr": 1e-3, "batch_tokens": 512}}
"""Short training of a sample (samples.py), by the URI of the data."""


def is_decoder(task: str) -> bool:
    """Return True for the task of a language model."""
    return task in TASKS


def choose_length(lengths: Array, limit: int | None) -> int:
    """Return the maximum number of tokens of a row, a multiple of 16 that no row of the sample exceeds.

    A conversation is never cut, and a row that is longer is dropped. limit: most tokens of the base.
    """
    longest = int(lengths.max(initial=1))
    return min(max(32, 16 * math.ceil(longest / 16)), LONGEST, limit or LONGEST)
