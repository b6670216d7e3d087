"""Readers of all formats: stream a file as small tables, each with the number of its first row (from 1)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns, from_arrow, from_objects
from raypath.components.data.formats.csv_reader import csv_columns, csv_rows
from raypath.components.data.formats.parse_errors import readable
from raypath.components.data.sources.files import DataFile, open_bytes
from raypath.components.data.sources.samples import load_sample
from raypath.components.data.streaming.parquet import GROUP_ROWS

NumberedTables = Iterator[tuple[int, pa.Table]]


def columns_in(file: DataFile) -> list[str]:
    """Column names of a file; for JSON lines the keys of the first object. Raises DataError for an empty file."""
    with readable(file):
        if file.path.stat().st_size == 0:
            raise DataError(f"{file.name} is empty", fix="remove it, or write it again")
        if file.format == "parquet":
            return [str(name) for name in pq.read_schema(file.path).names]
        if file.format == "sample":
            return [str(name) for name in load_sample(file.path).column_names]
        if file.format == "json":
            return [str(name) for name in next(_objects(file), {})]
        return csv_columns(file)


def rows_of(file: DataFile, columns: Columns) -> NumberedTables:
    """Stream the selected columns of a file in canonical form. Raises DataError for a file that cannot be read."""
    readers = {"csv": csv_rows, "tsv": csv_rows, "json": _json_rows, "parquet": _parquet_rows, "sample": _sample_rows}
    with readable(file):
        yield from readers[file.format](file, columns)


def _json_rows(file: DataFile, columns: Columns) -> NumberedTables:
    first, batch = 1, []
    for parsed in _objects(file):
        batch.append(parsed)
        if len(batch) == GROUP_ROWS:
            yield first, from_objects(file, columns, batch, first)
            first, batch = first + GROUP_ROWS, []
    if batch:
        yield first, from_objects(file, columns, batch, first)


def _objects(file: DataFile) -> Iterator[dict[str, Any]]:
    """Parse the object of each line; skips empty lines."""
    with open_bytes(file.path) as raw:
        for number, line in enumerate(raw, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield _object(file, number, text)


def _object(file: DataFile, number: int, text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    if number == 1 and text.startswith("["):
        fix = f"jq -c '.[]' {file.name} > data.jsonl"
        raise DataError(f"{file.name} is one JSON array; wanted one object per line", fix=fix)
    raise DataError(f"{file.name} line {number} is not a JSON object", fix="write one object per line")


def _parquet_rows(file: DataFile, columns: Columns) -> NumberedTables:
    names = columns.selected()
    row = 1
    # pre_buffer would load a whole row group, and other writers put a million rows into one.
    with pq.ParquetFile(file.path, pre_buffer=False, buffer_size=1 << 20) as source:
        for batch in source.iter_batches(GROUP_ROWS, columns=list(names.values()), use_threads=False):
            table = pa.table({canonical: batch.column(name) for canonical, name in names.items()})
            yield row, from_arrow(file, columns, table)
            row += batch.num_rows


def _sample_rows(file: DataFile, columns: Columns) -> NumberedTables:
    table = load_sample(file.path)
    selected = {canonical: table[name] for canonical, name in columns.selected().items()}
    yield 1, from_arrow(file, columns, pa.table(selected))
