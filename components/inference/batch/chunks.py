"""Chunks of a batch prediction: their rows, and their results as files that survive a crash.

A result is a file NUMBER-DIGEST.parquet, written atomically. A file that does not match its digest is deleted and
computed again.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import Column, is_single_text
from raypath.components.core.context import ShardStorage
from raypath.components.core.errors import DataError, PlatformError
from raypath.components.core.files import disk_full_as_store_error, file_digest
from raypath.components.data.streaming.parquet import schema_of
from raypath.components.data.streaming.row_files import RowFiles, dataset_files, uploaded
from raypath.components.inference.batch.scoring import data_files

MAX_ATTEMPTS = 4
"""Attempts per chunk in one attempt of the step; Ray restarts crashed workers without limit."""
SMALLEST = 8
"""Ratio of the largest to the smallest chunk; the last chunks are the smallest."""
AHEAD = 32
"""Minimum number of chunks that the remaining rows are divided into."""


@dataclass(frozen=True)
class Chunk:
    """A range of rows. first: index of the first row."""

    number: int
    first: int
    rows: int


def plan_chunks(rows: int, most: int, ahead: int = AHEAD) -> list[Chunk]:
    """Divide the rows into chunks of `most`, smaller ones towards the end, so that workers finish together.

    The result depends on the number of rows only, not on the machine, since the chunk determines the padding. ahead:
    minimum number of chunks that the remaining rows are divided into.
    """
    chunks: list[Chunk] = []
    first, size = 0, most
    while first < rows:
        while size > max(most // SMALLEST, 1) and size * ahead > rows - first:
            size = max(size // 2, 1)
        chunks.append(Chunk(len(chunks), first, min(size, rows - first)))
        first += size
    return chunks


@dataclass(frozen=True)
class TextRows:
    """Rows of a dataset for prediction: the input columns and, if there are any, `label`, `id` or `row`."""

    files: RowFiles

    @property
    def rows(self) -> int:
        return self.files.rows

    @property
    def columns(self) -> tuple[str, ...]:
        return self.files.columns or ()

    def read(self, chunk: Chunk) -> pa.Table:
        """Read the rows of a chunk; needs memory for one more row group.

        Without an id they are numbered from 1, as in errors of `read`, through all files.
        """
        table = pa.concat_tables(self.files.read(chunk.first, chunk.rows))
        if not {"id", "row"}.isdisjoint(self.columns):
            return table
        numbers = pa.array(range(chunk.first + 1, chunk.first + 1 + chunk.rows), pa.int64())
        return table.add_column(0, "row", numbers)


def text_rows(data: Dataset, inputs: Sequence[Column]) -> TextRows:
    """Return the rows to predict. Raises DataError without the model's input columns, or without rows."""
    data_files(data)
    names = schema_of(data.uri).names
    for column in inputs:
        if column.stored not in names:
            wanted = ",".join(each.name for each in inputs)
            fix = f"read it with -s read.{'text' if is_single_text(inputs) else 'inputs'}={wanted}"
            raise DataError(f"the model's input column {column.name} is not in the dataset", fix=fix)
    key = "id" if "id" in names else "row"
    columns = tuple(name for name in (key, *(column.stored for column in inputs), "label") if name in names)
    found = TextRows(dataset_files(data.uri, columns))
    if not found.rows:
        raise DataError("the dataset has no rows; wanted at least one", fix="use a dataset with texts")
    return found


def on_any_node(rows: TextRows, storage: ShardStorage | None, staging: Path) -> TextRows:
    """Return the same rows in files that tasks on any node can read: those that are only here are uploaded."""
    if storage is None or rows.files.portable:
        return rows
    return TextRows(uploaded(storage, rows.files, staging))


def count_attempt(folder: Path, what: str, most: int) -> None:
    """Count an attempt. Raises PlatformError for more than `most` attempts."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / f".{what}.begun", "ab") as file:
        file.write(b".")
        times = file.tell()
    if times > most:
        fix = "use a machine with more memory, or set -s predict.actors=1"
        raise PlatformError(f"prediction workers crashed {times - 1} times, the last at {what}", fix=fix)


def write_chunk(folder: Path, chunk: Chunk, table: pa.Table) -> Path:
    """Write the result of a chunk atomically; returns its path. Raises StoreError if the disk is full."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = folder / f".{chunk.number:05d}-{uuid.uuid4().hex[:8]}"
    try:
        with disk_full_as_store_error(f"no free disk space for predictions in {folder}"):
            pq.write_table(table, temporary, compression="zstd")
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            path = folder / f"{chunk.number:05d}-{file_digest(temporary)}.parquet"
            os.replace(temporary, path)
        return path
    finally:
        temporary.unlink(missing_ok=True)


def finished_chunks(folder: Path) -> dict[int, Path]:
    """Return the complete results by chunk number; incomplete ones are deleted."""
    found: dict[int, Path] = {}
    for path in folder.glob(".*"):
        path.unlink(missing_ok=True)
    for path in folder.glob("*.parquet"):
        number, _, digest = path.stem.partition("-")
        if file_digest(path) == digest:
            found[int(number)] = path
        else:
            path.unlink()
    return found
