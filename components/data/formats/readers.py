"""Readers of all formats: stream a file as small tables, each with the number of its first row (from 1)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns, from_arrow, from_objects
from raypath.components.data.formats.csv_reader import csv_columns, csv_rows
from raypath.components.data.formats.limits import BATCH_BYTES, too_long
from raypath.components.data.formats.parquet_reader import parquet_rows
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
            return [str(name) for _, parsed in islice(_objects(file), 1) for name in parsed]
        return csv_columns(file)


def rows_of(file: DataFile, columns: Columns) -> NumberedTables:
    """Stream the selected columns of a file in canonical form. Raises DataError for a file that cannot be read."""
    readers = {"csv": csv_rows, "tsv": csv_rows, "json": _json_rows, "parquet": parquet_rows, "sample": _sample_rows}
    with readable(file):
        yield from readers[file.format](file, columns)


def _json_rows(file: DataFile, columns: Columns) -> NumberedTables:
    first, size = 1, 0
    batch: list[dict[str, Any]] = []
    for length, parsed in _objects(file):
        batch.append(parsed)
        size += length
        if len(batch) == GROUP_ROWS or size > BATCH_BYTES:
            yield first, from_objects(file, columns, batch, first)
            first, size, batch = first + len(batch), 0, []
    if batch:
        yield first, from_objects(file, columns, batch, first)


def _objects(file: DataFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (bytes, object) of each line; skips empty lines."""
    with open_bytes(file.path) as raw:
        for number, line in enumerate(iter(lambda: raw.readline(BATCH_BYTES + 1), b""), start=1):
            if len(line) > BATCH_BYTES:
                raise too_long(file, number)
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield len(line), _object(file, number, text)


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


def _sample_rows(file: DataFile, columns: Columns) -> NumberedTables:
    table = load_sample(file.path)
    selected = {canonical: table[name] for canonical, name in columns.selected().items()}
    yield 1, from_arrow(file, columns, pa.table(selected))
