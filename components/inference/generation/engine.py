"""Protocol of text generation engines: token ids of prompts in, responses out.

Evaluation, batch prediction and serving use this protocol alone, so that an engine can be replaced by a faster one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

_VALID: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "max_new_tokens": (int, lambda value: value >= 1, "an integer of at least 1"),
    "temperature": (int | float, lambda value: 0 <= value < math.inf, "a number of at least 0"),
    "top_p": (int | float, lambda value: 0 < value <= 1, "a number above 0, at most 1"),
    "top_k": (int, lambda value: value >= 0, "an integer of at least 0"),
    "min_p": (int | float, lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    "repetition_penalty": (int | float, lambda value: 0 < value < math.inf, "a number above 0"),
    "seed": (int, lambda value: value >= 0, "an integer of at least 0"),
}
"""Types, range and its description of the sampling settings."""
Progress = Callable[[int, int], None]
"""Called with the number of finished prompts and of all."""


class Finish(StrEnum):
    """Reason why a response ended."""

    STOP = "stop"
    """The model generated a stop token."""
    LENGTH = "length"
    """`max_new_tokens`, or the model's context, was reached."""


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of decoding. The names are those of transformers, vLLM and OpenAI's API."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    """Divides the logits before a token is drawn; 0 is greedy decoding."""
    top_p: float = 1.0
    """Draw from the fewest tokens whose probabilities reach this sum (nucleus sampling)."""
    top_k: int = 0
    """Draw from this many most probable tokens; 0 from all."""
    min_p: float = 0.0
    """Draw from tokens with at least this share of the probability of the most probable one."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens in the prompt or the response; 1 is none."""
    stop: frozenset[int] = field(default_factory=frozenset)
    """Ids of tokens that end a response, besides the model's own."""
    seed: int = 0
    """Seed of the random numbers. A prompt has the same numbers in any batch."""

    def __post_init__(self) -> None:
        for name, (kinds, valid, wanted) in _VALID.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or not valid(value):
                raise ValueError(f"{name} is {value!r}; wanted {wanted}")


@dataclass(frozen=True)
class Generated:
    """Response to one prompt."""

    ids: list[int]
    """Token ids, without the stop token."""
    text: str
    """The ids as text, without special tokens."""
    finish: Finish
    logprobs: list[float]
    """Natural logarithm of each token's probability by the model, before temperature, penalty and truncation."""


class GenerationEngine(Protocol):
    """Engine that has loaded a model."""

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, progress: Progress | None = None
    ) -> list[Generated]:
        """Return an answer to each prompt, in the same order. Raises DataError for a prompt that the model cannot
        take."""
        ...
