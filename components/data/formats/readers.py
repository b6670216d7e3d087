"""Readers of all formats: stream a file as small tables, each with the number of its first row (from 1)."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns, from_arrow
from raypath.components.data.formats.csv.reader import csv_columns, csv_rows
from raypath.components.data.formats.json_reader import json_columns, json_rows
from raypath.components.data.formats.parquet_reader import parquet_columns, parquet_rows
from raypath.components.data.formats.parse_errors import readable
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.sources.samples import load_sample

NumberedTables = Iterator[tuple[int, pa.Table]]
_MODULE = "raypath.components.data.formats"
_LATE = {
    "arrow": "arrow_reader",
    "delta": "arrow_reader",
    "excel": "excel_reader",
    "sql": "sql_reader",
    "texts": "text_files",
}
"""Modules of the less common formats, which are imported when they are read."""


def columns_in(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Return the column names of a file; for JSON the keys up to the object where all `wanted` were found.

    Raises DataError for an empty file.
    """
    with readable(file):
        if file.path.is_file() and file.path.stat().st_size == 0:
            raise DataError(f"{file.name} is empty", fix="remove it, or write it again")
        names: list[Any] = list(_reader(file)[0](file, wanted))
        return [str(name) for name in names]


def rows_of(file: DataFile, columns: Columns) -> NumberedTables:
    """Stream the selected columns of a file in canonical form.

    Raises DataError for a file that cannot be read, or that changes while it is read.
    """
    stamp = file.stamp or file.stat()
    file.check_unchanged(stamp)
    with readable(file):
        try:
            yield from _reader(file)[1](file, columns)
        except DataError:
            file.check_unchanged(stamp)  # rather than what a file that was half written looks like
            raise
    file.check_unchanged(stamp)


def _reader(file: DataFile) -> tuple[Any, Any]:
    """Return the functions that read column names and rows of the file's format."""
    if file.format in _LATE:
        module = importlib.import_module(f"{_MODULE}.{_LATE[file.format]}")
        return getattr(module, f"{file.format}_columns"), getattr(module, f"{file.format}_rows")
    return {
        "csv": (csv_columns, csv_rows),
        "tsv": (csv_columns, csv_rows),
        "json": (json_columns, json_rows),
        "parquet": (parquet_columns, parquet_rows),
        "sample": (_sample_columns, _sample_rows),
    }[file.format]


def _sample_columns(file: DataFile, wanted: Collection[str]) -> list[str]:
    return list(load_sample(file.path, file.title).column_names)


def _sample_rows(file: DataFile, columns: Columns) -> NumberedTables:
    table = load_sample(file.path, file.title)
    selected = {canonical: table[name] for canonical, name in columns.selected().items()}
    yield 1, from_arrow(file, columns, pa.table(selected))
