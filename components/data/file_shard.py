"""A user's file as a stream of canonical tables: texts and labels present, splits validated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.data.columns.numeric import pack_targets
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import rows_of
from raypath.components.data.sources.files import SPLIT_NAMES, DataFile

_INVALID = {LabelKind.SET: "is not a list of classes", LabelKind.NUMBER: "is not a finite number"}


@dataclass(frozen=True)
class FileShard:
    """One file to read; a `Shard` for `stream_tables`. It is pickled to workers, so it keeps no open file.

    drop: rows without text or label get a null text, for the caller to count and drop; otherwise they raise DataError.
    """

    file: DataFile
    columns: Columns
    has_split: bool = False
    drop: bool = False

    def __call__(self) -> Iterator[pa.Table]:
        targets = list(self.columns.label_columns()) if self.columns.kind is LabelKind.NUMBER else []
        for row, table in rows_of(self.file, self.columns):
            yield self._with_split(pack_targets(self._complete(table, row), targets), row)

    @property
    def bytes(self) -> int:
        return self.file.path.stat().st_size

    def _complete(self, table: pa.Table, row: int) -> pa.Table:
        """Reject rows without text or label, or mark them by a null text."""
        missing = {name: _missing(table[name]) for name in ("text", *self.columns.label_columns())}
        if not any(pc.any(mask).as_py() for mask in missing.values()):
            return table
        if not self.drop:
            raise self._missing_error(missing, row)
        nulls = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
        incomplete = next(iter(missing.values()))
        for mask in missing.values():
            incomplete = pc.or_(incomplete, mask)
        text = pc.if_else(incomplete, nulls, table["text"])
        return table.set_column(table.column_names.index("text"), "text", text)

    def _missing_error(self, missing: dict[str, Any], row: int) -> DataError:
        name, mask = next((name, mask) for name, mask in missing.items() if pc.any(mask).as_py())
        problem = _INVALID[self.columns.kind] if self.columns.is_parsed(name) else "is empty"
        column = self.columns.selected()[name]
        what = f"{self.file.name}: column {column} {problem} in {_format_rows(mask, row)} (header not counted)"
        return DataError(what, fix="correct such rows, or drop them with -s read.nulls=drop")

    def _with_split(self, table: pa.Table, row: int) -> pa.Table:
        """Set the column `split` to train, valid, test or null."""
        if not self.has_split:
            return table
        if self.file.split or "split" not in table.column_names:
            given = pa.array([self.file.split or None] * table.num_rows, pa.string())
            names = [name for name in table.column_names if name != "split"]
            return table.select(names).append_column("split", given)
        words = pc.utf8_lower(pc.utf8_trim_whitespace(table["split"]))
        known = pa.chunked_array([[SPLIT_NAMES.get(word or "") for word in words.to_pylist()]], pa.string())
        unknown = pc.and_(pc.is_null(known), pc.invert(_blank(words)))
        if pc.any(unknown).as_py():
            what = f"{self.file.name}: column {self.columns.split} is neither train, valid nor test in "
            fix = "correct it, or ignore the column with -s read.split=none"
            raise DataError(what + _format_rows(unknown, row), fix=fix)
        return table.set_column(table.column_names.index("split"), "split", known)


def _missing(column: Any) -> Any:
    """True for a blank text, or a null set or number."""
    return _blank(column) if pa.types.is_string(column.type) else pc.is_null(column)


def _blank(column: Any) -> Any:
    """True for a value that is null or only white space."""
    return pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), True)


def _format_rows(mask: Any, first: int) -> str:
    rows = [str(first + n) for n, bad in enumerate(mask.to_pylist()) if bad]
    more = f" and at least {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"row {', '.join(rows[:3])}{more}"
