"""Rows with redacted inputs, and their originals as ciphertext."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raypath.components.core.columns import Column, inputs_of
from raypath.components.core.conversations import Conversation, Preference
from raypath.components.privacy.kinds import Kind
from raypath.components.privacy.originals import seal
from raypath.components.privacy.redactor import Redactor

KINDS = ("text", "messages", "preference")
"""Kinds of columns that are redacted; others have no text of a person's."""
CHANGED, FOUND, ORIGINAL = "redacted", "redacted_kinds", "original"
"""Columns that are not stored: a boolean, and a list with the kind of each item; and that of ciphertext."""
ORIGINALS = pa.schema([(ORIGINAL, pa.binary())])


def redactable(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Return the input columns with texts."""
    return tuple(column for column in inputs_of(columns) if column.kind in KINDS)


@dataclass(frozen=True)
class RedactRows:
    """Redact the columns of tables, and add `redacted` (bool) and `redacted_kinds` (list of string)."""

    redactor: Redactor
    columns: tuple[Column, ...]

    def __call__(self, table: pa.Table) -> pa.Table:
        found: list[list[str]] = [[] for _ in range(len(table))]
        for column in self.columns:
            values = table[column.stored].to_pylist()
            made, kinds = _redacted(self.redactor, column, values)
            for row, each in zip(found, kinds, strict=True):
                row += each
            place = table.schema.get_field_index(column.stored)
            table = table.set_column(place, table.schema.field(place), pa.array(made, table.schema.field(place).type))
        table = table.append_column(CHANGED, pa.array([bool(row) for row in found], pa.bool_()))
        return table.append_column(FOUND, pa.array(found, pa.list_(pa.string())))


@dataclass(frozen=True)
class SealRows:
    """Make of each row the ciphertext of its inputs before redaction; null for one that redaction does not change."""

    rows: RedactRows

    def __call__(self, table: pa.Table) -> pa.Table:
        key = self.rows.redactor.key
        assert key is not None
        names = [column.stored for column in self.rows.columns]
        changed, originals = self.rows(table)[CHANGED].to_pylist(), table.select(names).to_pylist()
        sealed = [
            seal(key, json.dumps(row, ensure_ascii=False)) if redacted else None
            for row, redacted in zip(originals, changed, strict=True)
        ]
        return pa.table({ORIGINAL: pa.array(sealed, pa.binary())})


def _redacted(
    redactor: Redactor, column: Column, values: Sequence[str | None]
) -> tuple[list[str | None], list[list[str]]]:
    """Return the values of a column with personal data replaced, and the kind of each item by row."""
    kinds: list[list[str]] = [[] for _ in values]
    if column.kind == "text":
        texts = ["" if value is None else value for value in values]
        spans = redactor.spans(texts)
        made: list[str | None] = [
            None if value is None else redactor.replaced(value, each) for value, each in zip(values, spans, strict=True)
        ]
        return made, [[span.kind.value for span in each] for each in spans]
    redact = _preference if column.kind == "preference" else _conversation
    made = []
    for n, value in enumerate(values):
        counts: Counter[Kind] = Counter()
        made.append(None if value is None else redact(redactor, value, counts))
        kinds[n] = [kind.value for kind, number in counts.items() for _ in range(number)]
    return made, kinds


def _conversation(redactor: Redactor, value: str, counts: Counter[Kind]) -> str:
    return redactor.conversation(Conversation.loads(value), counts).dumps()


def _preference(redactor: Redactor, value: str, counts: Counter[Kind]) -> str:
    return redactor.preference(Preference.loads(value), counts).dumps()
