"""Protocol of text generation engines: token ids of prompts in, responses out.

Evaluation, batch prediction and serving use this protocol alone, so that an engine can be replaced by a faster one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from raypath.components.core.errors import DataError

_VALID: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "max_new_tokens": (int, lambda value: value >= 1, "an integer of at least 1"),
    "temperature": (int | float, lambda value: 0 <= value < math.inf, "a number of at least 0"),
    "top_p": (int | float, lambda value: 0 < value <= 1, "a number above 0, at most 1"),
    "top_k": (int, lambda value: value >= 0, "an integer of at least 0"),
    "min_p": (int | float, lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    "repetition_penalty": (int | float, lambda value: 0 < value < math.inf, "a number above 0"),
    "presence_penalty": (int | float, lambda value: -2 <= value <= 2, "a number from -2 to 2"),
    "frequency_penalty": (int | float, lambda value: -2 <= value <= 2, "a number from -2 to 2"),
    "seed": (int, lambda value: value >= 0, "an integer of at least 0"),
    "top_logprobs": (int, lambda value: 0 <= value <= 20, "an integer from 0 to 20"),
}
"""Types, range and its description of the sampling settings."""
LEAST_TEMPERATURE = 1e-5
"""Logits that are divided by less are beyond float32."""
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
    """Divides the logits before a token is drawn; 0, and what is below 1e-5, is greedy decoding."""
    top_p: float = 1.0
    """Draw from the fewest tokens whose probabilities reach this sum (nucleus sampling)."""
    top_k: int = 0
    """Draw from this many most probable tokens; 0 from all."""
    min_p: float = 0.0
    """Draw from tokens with at least this share of the probability of the most probable one."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens in the prompt or the response; 1 is none."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens in the response."""
    frequency_penalty: float = 0.0
    """Subtracted from the logits of tokens in the response, once for each occurrence."""
    stop: frozenset[int] = field(default_factory=frozenset)
    """Ids of tokens that end a response, besides the model's own."""
    ignore_stop: bool = False
    """The model's own stop tokens do not end a response, as in measurements of speed."""
    seed: int = 0
    """Seed of the random numbers. A prompt has the same numbers in any batch."""
    logprobs: bool = True
    """Return the log-probability of each token. Without, an engine may leave them out, and is faster."""
    top_logprobs: int = 0
    """Most probable tokens that are returned with each token."""
    grammar: str = ""
    """JSON schema, as JSON, that the response follows; "" is none."""
    adapter: str = ""
    """Name of a loaded LoRA adapter; "" is the model itself."""

    def __post_init__(self) -> None:
        for name, (kinds, valid, wanted) in _VALID.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or not valid(value):
                raise ValueError(f"{name} is {value!r}; wanted {wanted}")
        if self.temperature < LEAST_TEMPERATURE:
            object.__setattr__(self, "temperature", 0.0)


@dataclass(frozen=True)
class Generated:
    """Response to one prompt."""

    ids: list[int]
    """Token ids, without the stop token."""
    text: str
    """The ids as text, without special tokens."""
    finish: Finish
    logprobs: list[float]
    """Natural logarithm of each token's probability by the model, before temperature, penalty and truncation; empty
    where the settings ask for none."""


class GenerationEngine(Protocol):
    """Engine that has loaded a model."""

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, progress: Progress | None = None
    ) -> list[Generated]:
        """Return an answer to each prompt, in the same order. Raises DataError for a prompt that the model cannot
        take."""
        ...


def check_prompts(prompts: Sequence[Sequence[int]], context: int, vocabulary: int) -> None:
    """Raise DataError for a prompt that is empty, leaves no room for an answer, or has ids that the model does not.

    context: most tokens of prompt and answer. vocabulary: number of tokens.
    """
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise DataError(f"prompt {row} is empty; wanted at least one token")
        if len(prompt) >= context:
            what = f"prompt {row} has {len(prompt):,} tokens, and the model takes {context:,} with the answer"
            raise DataError(what, fix="shorten it, or take a base with a longer context")
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            what = f"prompt {row} has a token id outside of the model's vocabulary of {vocabulary:,}"
            raise DataError(what, fix="use the tokenizer of the model's folder")


def no_adapters(engine: str, name: str) -> DataError:
    """Error of an engine that serves one model, into which adapters are merged."""
    what = f"adapter {name} cannot be loaded beside others: the engine {engine} serves one model"
    return DataError(what, fix="register the adapter as a version of its own, which is served merged")


def request_seed(seed: int, repeat: int, prompt: Sequence[int]) -> int:
    """Return a seed of 32 bits that depends on the prompt, so that equal settings draw differently for different
    prompts. repeat: how often the prompt occurred before it in the same call."""
    digest = hashlib.sha256(np.asarray([seed % 2**63, repeat, *prompt], np.int64).tobytes()).digest()
    return int.from_bytes(digest[:4], "little")
