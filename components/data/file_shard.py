"""A user's file as rows that are fit to use: texts that are there, parts that are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.errors import DataError
from raypath.components.data.columns.numeric import packed
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import rows_of
from raypath.components.data.sources.files import SPLIT_NAMES, DataFile

_LACKS = {"set": "holds no list of classes", "number": "holds no finite number"}


@dataclass(frozen=True)
class FileShard:
    """One file to read; calling it streams its rows. It travels to workers, so it holds no open file.

    drop: rows without text or label are given with a null text, for the caller to count and leave out.
    """

    file: DataFile
    columns: Columns
    has_split: bool = False
    drop: bool = False

    def __call__(self) -> Iterator[pa.Table]:
        for row, table in rows_of(self.file, self.columns):
            yield self._with_part(packed(self._complete(table, row), self._numbers()), row)

    @property
    def bytes(self) -> int:
        return self.file.path.stat().st_size

    def _numbers(self) -> list[str]:
        return list(self.columns.labelled()) if self.columns.kind == "number" else []

    def _complete(self, table: pa.Table, row: int) -> pa.Table:
        """Rows whose text and label are there; the others refused, or marked by a null text."""
        lacks = {name: _lacking(table[name]) for name in ("text", *self.columns.labelled())}
        if not any(pc.any(blank).as_py() for blank in lacks.values()):
            return table
        if not self.drop:
            raise self._missing(lacks, row)
        whole = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
        bad = next(iter(lacks.values()))
        for blank in lacks.values():
            bad = pc.or_(bad, blank)
        return table.set_column(table.column_names.index("text"), "text", pc.if_else(bad, whole, table["text"]))

    def _missing(self, lacks: dict[str, Any], row: int) -> DataError:
        name, blank = next((name, blank) for name, blank in lacks.items() if pc.any(blank).as_py())
        where = _places(blank, row)
        lack = _LACKS[self.columns.kind] if self.columns.shapes(name) else "is empty"
        what = f"{self.file.name}: column {self.columns.wanted()[name]} {lack} in {where} (header not counted)"
        return DataError(what, fix="fill it in, or leave such rows out with -s read.nulls=drop")

    def _with_part(self, table: pa.Table, row: int) -> pa.Table:
        """The column `part` as train, valid, test or null."""
        if not self.has_split:
            return table
        if self.file.part or "part" not in table.column_names:
            given = pa.array([self.file.part or None] * table.num_rows, pa.string())
            names = [name for name in table.column_names if name != "part"]
            return table.select(names).append_column("part", given)
        words = pc.utf8_lower(pc.utf8_trim_whitespace(table["part"]))
        known = pa.chunked_array([[SPLIT_NAMES.get(word or "") for word in words.to_pylist()]], pa.string())
        strange = pc.and_(pc.is_null(known), pc.invert(_blank(words)))
        if pc.any(strange).as_py():
            what = f"{self.file.name}: column {self.columns.part} says neither train, valid nor test in "
            fix = "correct it, or ignore the column with -s read.split=none"
            raise DataError(what + _places(strange, row), fix=fix)
        return table.set_column(table.column_names.index("part"), "part", known)


def _lacking(column: Any) -> Any:
    """True where a text is blank, or where a set or a number is null."""
    return _blank(column) if pa.types.is_string(column.type) else pc.is_null(column)


def _blank(column: Any) -> Any:
    """True where a value is null or nothing but white space."""
    return pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), True)


def _places(mask: Any, first: int) -> str:
    rows = [str(first + n) for n, bad in enumerate(mask.to_pylist()) if bad]
    more = f" and {len(rows) - 3} more nearby" if len(rows) > 3 else ""
    return f"row {', '.join(rows[:3])}{more}"
