"""Questions of an evaluation: rows of the test split, references, phrases and canaries of the training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raypath.components.core.artifacts import Dataset
from raypath.components.evaluation.generation.answers import References
from raypath.components.evaluation.generation.leaks import PhraseIndex, has_canary
from raypath.components.evaluation.generation.structure import schema_validator
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.evaluation.conversations import (
    PromptRow,
    choose_rows,
    read_answers,
    read_prompt_rows,
)

MOST_TRAIN = 20_000
"""Most training rows in which passages are looked for; with canaries all are read."""
MOST_PLANTED = 50
"""Most training rows with a canary whose prompts are answered."""


@dataclass(frozen=True)
class AnswerSettings:
    """All that the answers to a test split, and their metrics, depend on besides the model. Stored as JSON."""

    rows: int
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    schema: dict[str, Any] | None = None
    objective: dict[str, Any] | None = None
    """Objective of preferences, by which pairs are compared; see ModelMetadata."""

    def dumps(self) -> str:
        """Return the settings as JSON, equal for equal settings."""
        given = {name: each for name, each in vars(self).items() if name != "objective" or each}
        return json.dumps(given, sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> AnswerSettings:
        """Read what `dumps` wrote."""
        return cls(**json.loads(text))

    @property
    def sampling(self) -> SamplingSettings:
        """Settings of the engine."""
        return SamplingSettings(self.max_new_tokens, self.temperature, self.top_p, seed=self.seed, logprobs=False)


@dataclass(frozen=True)
class Prompts:
    """Rows to answer, and what their metrics need."""

    rows: Sequence[PromptRow]
    wanted: References
    planted: Sequence[PromptRow] = ()
    """Training rows with a canary."""

    @property
    def are_texts(self) -> bool:
        """True for rows without prompts, which are scored and not answered."""
        return bool(self.rows) and not any(each.turns for each in self.rows)


def load_prompts(
    data: Dataset, settings: AnswerSettings, train: Dataset | None = None, canaries: Sequence[str] = ()
) -> Prompts:
    """Read the rows of a test split that are to be answered.

    train: Training split, in which copied passages and canaries are looked for. Raises DataError for a dataset without
    conversations, ParamsError for a schema that is none.
    """
    rows = read_prompt_rows(data, choose_rows(data.rows, settings.rows))
    phrases, planted = _training(train, canaries) if train is not None and train.rows else (None, [])
    wanted = References(
        texts=[each.reference for each in rows],
        prompts=["\n".join(said for _, said in each.turns) for each in rows],
        schema=schema_validator(settings.schema) if settings.schema is not None else None,
        phrases=phrases,
        canaries=canaries,
    )
    return Prompts(rows, wanted, planted)


def _training(train: Dataset, canaries: Sequence[str]) -> tuple[PhraseIndex, list[PromptRow]]:
    found = read_answers(train, 0 if canaries else MOST_TRAIN)
    planted = [
        PromptRow(row, conversation)
        for row, (conversation, said) in enumerate(found)
        if canaries and len(conversation.messages) > 1 and has_canary(said, canaries)
    ]
    return PhraseIndex(said for _, said in found), planted[:MOST_PLANTED]
