"""A file of any known format as a stream of small tables, each with the number of its first row (from 1)."""

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

Rows = Iterator[tuple[int, pa.Table]]


def columns_in(file: DataFile) -> list[str]:
    """The names of a file's columns, for JSON lines the keys of its first object. Raises DataError when it is empty."""
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


def rows_of(file: DataFile, columns: Columns) -> Rows:
    """Stream the wanted columns of a file, see `typed`. Raises DataError for what cannot be read."""
    readers = {"csv": csv_rows, "tsv": csv_rows, "json": _json_rows, "parquet": _parquet_rows, "sample": _sample_rows}
    with readable(file):
        yield from readers[file.format](file, columns)


def _json_rows(file: DataFile, columns: Columns) -> Rows:
    first, batch = 1, []
    for found in _objects(file):
        batch.append(found)
        if len(batch) == GROUP_ROWS:
            yield first, from_objects(file, columns, batch, first)
            first, batch = first + GROUP_ROWS, []
    if batch:
        yield first, from_objects(file, columns, batch, first)


def _objects(file: DataFile) -> Iterator[dict[str, Any]]:
    """The object of each line; empty lines are passed over."""
    with open_bytes(file.path) as raw:
        for number, line in enumerate(raw, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield _object(file, number, text)


def _object(file: DataFile, number: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    if number == 1 and text.startswith("["):
        fix = f"jq -c '.[]' {file.name} > data.jsonl"
        raise DataError(f"{file.name} is one JSON array; wanted one object a line", fix=fix)
    raise DataError(f"{file.name} line {number} is no JSON object", fix="write one object a line")


def _parquet_rows(file: DataFile, columns: Columns) -> Rows:
    names = columns.wanted()
    row = 1
    # pre_buffer would load a whole row group, and other writers make them of a million rows.
    with pq.ParquetFile(file.path, pre_buffer=False, buffer_size=1 << 20) as source:
        for batch in source.iter_batches(GROUP_ROWS, columns=list(names.values()), use_threads=False):
            table = pa.table({ours: batch.column(name) for ours, name in names.items()})
            yield row, from_arrow(file, columns, table)
            row += batch.num_rows


def _sample_rows(file: DataFile, columns: Columns) -> Rows:
    whole = load_sample(file.path)
    yield 1, from_arrow(file, columns, pa.table({ours: whole[name] for ours, name in columns.wanted().items()}))
