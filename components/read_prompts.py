"""Read the rows that a language model is to respond to: conversations, prompts, or OpenAI's batch format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from raypath.components.core.artifacts import Dataset
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.core.params import Params, Source

if TYPE_CHECKING:
    from raypath.components.data.sources.data_file import DataFile

BATCH_ROWS = 1_024
"""Rows that are written together."""
FORMATS, TABLES = ("json", "parquet"), ("csv", "tsv")


class ReadPromptsParams(Params):
    """Location of the prompts."""

    uri: Source = ""
    """A file, a folder, a glob, or one of these in a bucket: jsonl, json (each also .gz, .zst, .bz2) or parquet. A row
    has messages in OpenAI's format, with tools if there are any, or a text prompt; or custom_id, method, url and body
    (OpenAI's batch format)."""
    text: str = ""
    """Name of a column of texts, each of which is a prompt, such as the sources of an encoder-decoder; the file may
    then be csv or tsv too."""


@component(version=1)
def read_prompts(ctx: Context, params: ReadPromptsParams) -> Dataset:
    """Read the rows in the order of the files.

    Columns are `row` (its number in all files, from 1), `record` (the row as JSON) and `request`, JSON too. Raises
    DataError for a row without a conversation; a wrong request in OpenAI's batch format is kept with its error.
    """
    import pyarrow as pa

    from raypath.components.data.formats.parse_errors import readable
    from raypath.components.data.sources.files import find
    from raypath.components.data.streaming.parquet import TableWriter
    from raypath.components.read import DOWNLOADS

    if not params.uri:
        raise DataError("there is no file of prompts", fix="set -s read.uri=FILE")
    schema = pa.schema([("row", pa.int64()), ("record", pa.string()), ("request", pa.string())])
    files = find(params.uri, ctx.log, ctx.scratch / DOWNLOADS)
    rows: list[dict[str, Any]] = []
    with TableWriter(ctx.out, schema) as writer:
        for file in files:
            with readable(file):
                for made in _requests(file, params.text):
                    rows.append({"row": writer.rows + len(rows) + 1, **made})
                    if len(rows) == BATCH_ROWS:
                        writer.write(pa.Table.from_pylist(rows, schema))
                        rows = []
        if rows:
            writer.write(pa.Table.from_pylist(rows, schema))
    shutil.rmtree(ctx.scratch / DOWNLOADS, ignore_errors=True)
    if not writer.rows:
        raise DataError(f"{params.uri} has no rows", fix="give a file with conversations")
    return Dataset(rows=writer.rows, label_kind=LabelKind.NONE, source=params.uri)


def _requests(file: DataFile, text: str) -> Iterator[dict[str, str]]:
    """Yield record and request of each row. Raises DataError for a row without a conversation."""
    from raypath.components.inference.generation.requests import request_of

    for number, row in enumerate(_objects(file, text), 1):
        try:
            request = request_of(row, text)
        except ValueError as error:
            fix = 'give messages, such as [{"role": "user", "content": "..."}], or a prompt'
            fix = f"correct or remove it, or name another column with -s read.text=COLUMN, not {text}" if text else fix
            raise DataError(f"{file.name} row {number} {error}", fix=fix) from None
        yield {"record": json.dumps(row, ensure_ascii=False, default=str), "request": request.dumps()}


def _objects(file: DataFile, text: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file as objects. text: column of a table of texts, which is one too."""
    from raypath.components.data.formats.json_reader import json_objects
    from raypath.components.data.formats.parquet_reader import parquet_objects

    if text and file.format in TABLES:
        yield from _table_rows(file, text)
        return
    if file.format not in FORMATS:
        fix = "name its column of prompts with -s read.text=COLUMN" if file.format in TABLES else "write JSON lines"
        raise DataError(f"{file.name} is neither jsonl, json nor parquet", fix=fix)
    yield from (row for _, row in json_objects(file)) if file.format == "json" else parquet_objects(file)


def _table_rows(file: DataFile, text: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or TSV file, whose cells are texts. Raises DataError for a row of another length."""
    import csv
    import io

    from raypath.components.data.formats.csv.header import open_csv, read_header

    delimiter = read_header(file, {text}).delimiter
    with open_csv(file)[0] as stream, io.TextIOWrapper(stream, "utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines, delimiter=delimiter), 1):
            if None in row or None in row.values():
                what = f"{file.name} row {number} has another number of cells than the header (header not counted)"
                raise DataError(what, fix="quote cells that have commas or line breaks")
            yield row
