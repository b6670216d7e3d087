"""Files of numbered rows, for writers and readers whose files and row groups are small."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from raypath.components.data.streaming.parquet import TableWriter

SCHEMA = pa.schema([("n", pa.int64()), ("label", pa.string())])


def number_table(first: int, rows: int) -> pa.Table:
    """Rows with the numbers from `first` on, and one of three labels each."""
    numbers = list(range(first, first + rows))
    return pa.table({"n": numbers, "label": [str(n % 3) for n in numbers]}, SCHEMA)


def write_numbers(folder: Path, *sizes: int) -> Path:
    """Write tables of these sizes to a folder; returns it."""
    first = 0
    with TableWriter(folder, SCHEMA) as writer:
        for size in sizes:
            writer.write(number_table(first, size))
            first += size
    assert writer.rows == first
    return folder


def numbers_of(tables: Iterable[pa.Table]) -> list[list[int]]:
    """The numbers of each table."""
    return [table["n"].to_pylist() for table in tables]
