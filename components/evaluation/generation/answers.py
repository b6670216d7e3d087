"""Answers of a model to the rows of a split, and what metrics need to know besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from raypath.components.core.arrays import Array
from raypath.components.evaluation.generation.choices import find_choices
from raypath.components.evaluation.generation.structure import is_object

if TYPE_CHECKING:
    from raypath.components.evaluation.generation.leaks import PhraseIndex

JSON_SHARE = 0.95
"""Share of references that are JSON objects or arrays from which answers are expected to be."""


@dataclass(frozen=True)
class References:
    """References of N rows, and settings of metrics. Equal for all models that are compared."""

    texts: Sequence[str]
    prompts: Sequence[str] = ()
    """All texts of each prompt, for leaks."""
    schema: Callable[[str], float] | None = None
    """Of `structure.schema_validator`."""
    phrases: PhraseIndex | None = None
    """Phrases of the training answers."""
    canaries: Sequence[str] = ()

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """The distinct references where answers are one of few."""
        return find_choices(self.texts)

    @cached_property
    def expects_json(self) -> bool:
        """True if nearly all references are JSON objects or arrays."""
        return sum(map(is_object, self.texts)) >= JSON_SHARE * max(len(self.texts), 1)

    def copied_words(self, predictions: Sequence[str]) -> list[int]:
        """Return the words of the longest passage that each prediction copies from training answers, [N].

        Passages of the row's own prompt and reference do not count. There have to be `phrases`.
        """
        assert self.phrases is not None
        own = zip(self.prompts or [""] * len(self.texts), self.texts, strict=True)
        return [self.phrases.copied(text, each) for text, each in zip(predictions, own, strict=True)]


@dataclass(frozen=True)
class Answers:
    """Answers of one model to these rows."""

    predictions: Sequence[str]
    stopped: Sequence[bool] = ()
    """True where the model ended its answer itself."""
    likelihood: Array | None = None
    """Of the reference, float64 [N, 3]: negative log likelihood in nats, tokens, tokens predicted correctly."""
    judged: Array | None = None
    """Of the judge, float64 [N]: 1 for a row that is better than the other model's, 0.5 for a tie, NaN without."""
    rewards: Array | None = None
    """Of the rows that are pairs, float64 [N, 3]: the chosen answer has the higher reward, the margin, the loss."""
