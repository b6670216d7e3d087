"""All columns of a file as they are written, read by the reader of its format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import columns_in, rows_of
from raypath.components.data.sources.files import DataFile
from raypath.components.inspection.columns.guess import check_number


@dataclass(frozen=True)
class RawColumns(Columns):
    """Columns that the readers convert to text, whatever their types: lists and objects to JSON, true to `true`."""

    names: tuple[str, ...] = ()

    def selected(self) -> dict[str, str]:
        """Map a position to each name, since the canonical names would be converted."""
        return {f"#{n}": name for n, name in enumerate(self.names)}

    def is_parsed(self, canonical: str) -> bool:
        """Return True: every value goes through `parse`."""
        return True

    def parse(self, values: Iterable[Any]) -> pa.Array:
        """Convert values to text; null stays null, and NaN is one."""
        return pa.array([_text(value) for value in values], pa.string())


def raw_tables(file: DataFile) -> Iterator[pa.Table]:
    """Yield all rows of a file, every column as text. Raises DataError for an unreadable or too wide file."""
    names = tuple(dict.fromkeys(columns_in(file)))
    check_number(len(names))
    for _, table in rows_of(file, RawColumns(inputs=(), names=names)):
        positions = [int(name[1:]) for name in table.column_names if name.startswith("#")]
        yield pa.table([table[f"#{n}"] for n in positions], names=[names[n] for n in positions])


def _text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)
