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
FORMATS = ("json", "parquet")


class ReadPromptsParams(Params):
    """Location of the prompts."""

    uri: Source = ""
    """A file, a folder, a glob, or one of these in a bucket: jsonl, json (each also .gz, .zst, .bz2) or parquet. A row
    has messages in OpenAI's format, with tools if there are any, or a text prompt; or custom_id, method, url and body
    (OpenAI's batch format)."""


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
                for made in _requests(file):
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


def _requests(file: DataFile) -> Iterator[dict[str, str]]:
    """Yield record and request of each row. Raises DataError for a row without a conversation."""
    from raypath.components.inference.generation.requests import request_of

    for number, row in enumerate(_objects(file), 1):
        try:
            request = request_of(row)
        except ValueError as error:
            fix = 'give messages, such as [{"role": "user", "content": "..."}], or a prompt'
            raise DataError(f"{file.name} row {number} {error}", fix=fix) from None
        yield {"record": json.dumps(row, ensure_ascii=False, default=str), "request": request.dumps()}


def _objects(file: DataFile) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file as objects."""
    from raypath.components.data.formats.json_reader import json_objects
    from raypath.components.data.formats.parquet_reader import parquet_objects

    if file.format not in FORMATS:
        raise DataError(f"{file.name} is neither jsonl, json nor parquet", fix="write the prompts as JSON lines")
    yield from (row for _, row in json_objects(file)) if file.format == "json" else parquet_objects(file)
