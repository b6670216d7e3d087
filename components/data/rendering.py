"""Text form of rows with several input columns, the same in training, batch prediction and service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.columns import TEXT, Column, InputForm, inputs_of
from raypath.components.core.errors import DataError
from raypath.components.data.columns.catalog import kind_of
from raypath.components.data.tokenization.text_pair import TextPair


class Renderer:
    """Render the inputs of rows as one text, or TextPair, each.

    columns: of the dataset or model; those that are no inputs are ignored. form: see `InputForm`. redact: redacts the
    values of text columns, for rows that are not those of a dataset.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        form: InputForm = "text",
        redact: Callable[[list[str]], list[str]] | None = None,
    ) -> None:
        self.columns, self.form, self._redact = inputs_of(columns), form, redact
        self._kinds = [kind_of(column.kind) for column in self.columns]

    @property
    def stored(self) -> list[str]:
        """Names of the columns that `table` reads."""
        return [column.stored for column in self.columns]

    def table(self, table: pa.Table) -> list[str]:
        """Render the rows of a table or record batch with the stored columns. A missing value is an empty text."""
        parts = [
            ["" if value is None else kind.render(value) for value in table.column(column.stored).to_pylist()]
            for column, kind in zip(self.columns, self._kinds, strict=True)
        ]
        if self._redact is not None:
            kinds = [column.kind for column in self.columns]
            parts = [self._redact(part) if kind == "text" else part for part, kind in zip(parts, kinds, strict=True)]
        if self.form == "text":
            return parts[0]
        if self.form == "pair":
            return [TextPair(first, second) for first, second in zip(*parts, strict=True)]
        names = [column.name for column in self.columns]
        return [
            "\n".join(f"{name}: {part}" for name, part in zip(names, row, strict=True) if part)
            for row in zip(*parts, strict=True)
        ]

    def values(self, columns: Mapping[str, Sequence[Any]]) -> list[str]:
        """Render values of any format by the user's column names, all of one length; a missing one is None.

        Raises DataError for an unknown or absent column, a value of another kind, and a row without any value.
        """
        arrays = {}
        for column, kind in zip(self.columns, self._kinds, strict=True):
            if column.name not in columns:
                raise DataError(f"column {column.name} is missing", fix=f"give {', '.join(self._names)}")
            given, invalid = kind.column(list(columns[column.name]))
            if invalid.any():
                what = f"{column.name}[{int(invalid.argmax())}] is not {kind.wanted}"
                raise DataError(what, fix=f"give {kind.wanted}, or null where it is missing")
            arrays[column.stored] = given
        if unknown := [name for name in columns if name not in self._names]:
            raise DataError(f"column {unknown[0][:64]} is unknown", fix=f"give {', '.join(self._names)}")
        table = pa.table(arrays)
        empty = pc.index(without_inputs(table, self.stored), True).as_py()
        if empty >= 0:
            raise DataError(f"row {empty} has no value in any column", fix=f"give one of {', '.join(self._names)}")
        return self.table(table)

    @property
    def _names(self) -> list[str]:
        return [column.name for column in self.columns]


def without_inputs(table: pa.Table, stored: Sequence[str]) -> Any:
    """Boolean column, True for a row whose input columns are all null."""
    empty = pc.is_null(table[stored[0]])
    for name in stored[1:]:
        empty = pc.and_(empty, pc.is_null(table[name]))
    return empty


def contents(table: pa.Table, columns: Sequence[Column]) -> Any:
    """String column with all inputs of each row, for comparing rows."""
    columns = inputs_of(columns)
    if [column.stored for column in columns] == [TEXT]:
        return table[TEXT]
    parts = [Renderer([column]) for column in columns]
    return pa.chunked_array([["\x1f".join(row) for row in zip(*(part.table(table) for part in parts), strict=True)]])


def choose_form(columns: Sequence[Column], encodes_pairs: bool, wanted: str = "auto") -> InputForm:
    """Choose the form of a dataset's inputs. encodes_pairs: the tokenizer separates the texts of a pair.

    Raises DataError for a form that does not fit the columns.
    """
    inputs = inputs_of(columns)
    two_texts = [column.kind for column in inputs] == ["text", "text"]
    if wanted == "pair" and not (two_texts and encodes_pairs):
        what = "form pair takes two texts, and a tokenizer that separates them"
        raise DataError(what, fix="leave preprocess.form out, or set -s preprocess.form=fields")
    if len(inputs) == 1:
        return "text"
    return "pair" if two_texts and encodes_pairs and wanted != "fields" else "fields"
