"""Predicting part by part: which rows are a part, and finished parts as files that a kill leaves whole.

A part is a file NUMBER-DIGEST.parquet, written aside, flushed and renamed; one whose bytes are not those of the digest
in its name is thrown away and computed again.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError, PlatformError, StoreError
from raypath.components.core.files import file_digest, is_disk_full
from raypath.components.inference.batch.scoring import parquet_files

COLUMNS = ("text", "label")
TRIES = 4
"""Times that one part is begun in one attempt of the step; Ray starts a worker that dies again without end."""
ROOM = "free disk space, then run the same command again"
SMALLEST = 8
"""The last parts are this many times smaller than the first."""
AHEAD = 32
"""A part is at most one of this many of the rows that are left."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a dataset, side by side. first: the number of its first row."""

    number: int
    first: int
    rows: int


def plan(rows: int, most: int) -> list[Chunk]:
    """All rows in order, `most` a part and fewer towards the end, so that those who compute them end together.

    It depends on the rows alone and not on the machine: what is in a part decides how its rows are padded.
    """
    parts: list[Chunk] = []
    first, size = 0, most
    while first < rows:
        while size > max(most // SMALLEST, 1) and size * AHEAD > rows - first:
            size = max(size // 2, 1)
        parts.append(Chunk(len(parts), first, min(size, rows - first)))
        first += size
    return parts


@dataclass(frozen=True)
class TextRows:
    """The rows of a dataset that prediction reads: columns `text` and, where there is one, `label`."""

    files: tuple[tuple[Path, int], ...]
    """Each with its number of rows."""
    columns: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.files)

    def read(self, part: Chunk) -> pa.Table:
        """The rows of one part; holds one row group beside it."""
        first, end = part.first, part.first + part.rows
        found: list[pa.Table] = []
        for path, rows in self.files:
            if first < rows and end > 0:
                found += _slices(path, self.columns, max(first, 0), min(end, rows))
            first, end = first - rows, end - rows
        return pa.concat_tables(found)


def _slices(path: Path, columns: tuple[str, ...], first: int, end: int) -> Iterator[pa.Table]:
    """Rows `first` to `end` of a file; row groups without one of them are passed over."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if first < rows and end > 0:
                table = file.read_row_group(number, columns=list(columns), use_threads=False)
                yield table.slice(max(first, 0), min(end, rows) - max(first, 0))
            first, end = first - rows, end - rows


def rows_of(data: Dataset) -> TextRows:
    """What is to be predicted. Raises DataError without a column `text`, or without rows."""
    files = parquet_files(data)
    names = pq.read_schema(files[0]).names
    if "text" not in names:
        raise DataError(f"{files[0].name} lacks the column text", fix="give a dataset that `read` made")
    columns = tuple(name for name in COLUMNS if name in names)
    found = TextRows(tuple((path, pq.read_metadata(path).num_rows) for path in files), columns)
    if not found.rows:
        raise DataError("the dataset has no rows; wanted at least one", fix="give a dataset with texts")
    return found


def begin(folder: Path, what: str, most: int) -> None:
    """Count how often something was begun. Raises PlatformError for more than `most` times."""
    with open(folder / f".{what}.begun", "ab") as file:
        file.write(b".")
        times = file.tell()
    if times > most:
        fix = "give the machine more memory, or set -s predict.actors=1"
        raise PlatformError(f"workers of the prediction died {times - 1} times, the last at {what}", fix=fix)


def save(folder: Path, part: Chunk, table: pa.Table) -> None:
    """Write a finished part. Raises StoreError when the disk is full, and then leaves nothing."""
    aside = folder / f".{part.number:05d}-{uuid.uuid4().hex[:8]}"
    try:
        pq.write_table(table, aside, compression="zstd")
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, folder / f"{part.number:05d}-{file_digest(aside)}.parquet")
    except OSError as error:
        if is_disk_full(error):
            raise StoreError(f"no room for predictions in {folder}", fix=ROOM) from None
        raise
    finally:
        aside.unlink(missing_ok=True)


def finished(folder: Path) -> dict[int, Path]:
    """The parts in a folder that are whole, by number; what a kill has left of others is removed."""
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


def joined(parts: dict[int, Path]) -> Iterator[pa.Table]:
    """The rows of all parts in order, one part at a time."""
    for number in sorted(parts):
        with pq.ParquetFile(parts[number], pre_buffer=False) as file:
            yield file.read(use_threads=False)
