"""Rows of a split as prompts and references: the prompt is all before the last message, which is the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import Column, inputs_of
from raypath.components.core.conversations import Conversation, Preference
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.inference.batch.scoring import batches

MESSAGES, PREFERENCE = "messages", "preference"
"""Kinds of columns that have an answer."""


@dataclass(frozen=True)
class PromptRow:
    """A row that a model is to answer. row: its number in the split, from 0."""

    row: int
    conversation: Conversation

    @property
    def reference(self) -> str:
        """Text of the answer; calls of tools follow it as JSON, a line each."""
        return message_text(self.conversation.answer)

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Role and text of each message of the prompt."""
        return [(message["role"], message_text(message)) for message in self.conversation.prompt.messages]


def message_text(message: Any) -> str:
    """Return the text of a message; calls of tools follow as JSON, a line each."""
    calls = [json.dumps(call.get("function", {}), ensure_ascii=False) for call in message.get("tool_calls") or ()]
    return "\n".join(part for part in (message.get("content") or "", *calls) if part)


def choose_rows(rows: int, most: int) -> Array:
    """Return the numbers of at most `most` rows, spread evenly, int64; 0 for all."""
    if not most or rows <= most:
        return np.arange(rows)
    return np.unique(np.linspace(0, rows - 1, most).astype(np.int64))


def read_prompt_rows(data: Dataset, rows: Array) -> list[PromptRow]:
    """Read the rows with these numbers that have a prompt and an answer; if none has one, the texts without a prompt.

    Texts are scored and not answered. A conversation that is labelled as bad has no reference. Of a preference the
    chosen answer is the reference. Raises DataError for a dataset without conversations.
    """
    column = conversation_column(data)
    labels = data.label_kind is LabelKind.BOOL
    found: list[PromptRow] = []
    texts: list[PromptRow] = []
    for row, text, label in _values(data, column.stored, labels, rows):
        conversation = as_conversation(column, text)
        if label is None or label == "true":
            (found if len(conversation.messages) > 1 else texts).append(PromptRow(row, conversation))
    return found or texts


def read_answers(data: Dataset, most: int) -> list[tuple[Conversation, str]]:
    """Read conversations, and the text of all their answers; `most` rows, spread evenly. Raises DataError as above."""
    column, found = conversation_column(data), []
    for _, text, _ in _values(data, column.stored, False, choose_rows(data.rows, most)):
        conversation = as_conversation(column, text)
        said = [message_text(each) for each in conversation.messages if each["role"] == "assistant"]
        found.append((conversation, "\n".join(said)))
    return found


def conversation_column(data: Dataset) -> Column:
    """Return the input column with conversations or preferences. Raises DataError."""
    for column in inputs_of(data.columns):
        if column.kind in (MESSAGES, PREFERENCE):
            return column
    what = f"the test split has no column of kind {MESSAGES} or {PREFERENCE}"
    raise DataError(what, fix="read conversations, or use the step evaluate")


def as_conversation(column: Column, text: str) -> Conversation:
    """Read a stored value of the column."""
    return Preference.loads(text).with_chosen if column.kind == PREFERENCE else Conversation.loads(text)


def _values(data: Dataset, stored: str, labels: bool, rows: Array) -> Iterator[tuple[int, str, str | None]]:
    """Yield number, text and label of some rows, in order. rows: sorted."""
    start = 0
    names = [stored, *(["label"] if labels else [])]
    for batch in batches(data, names):
        here: Sequence[int] = rows[(rows >= start) & (rows < start + batch.num_rows)].tolist()
        texts = batch.column(stored).take(np.asarray(here, np.int64) - start).to_pylist() if here else []
        marks = batch.column("label").to_pylist() if labels else []
        for row, text in zip(here, texts, strict=True):
            yield row, text, marks[row - start] if labels else None
        start += batch.num_rows
