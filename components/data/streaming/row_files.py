"""Parquet files as one sequence of rows, of which a task reads a range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components.data.streaming.shard_files import ShardFile, are_portable, shard_files


@dataclass(frozen=True)
class RowFiles:
    """Files and their numbers of rows, in row order; columns: None for all."""

    files: tuple[tuple[ShardFile, int], ...]
    columns: tuple[str, ...] | None = None

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.files)

    @property
    def portable(self) -> bool:
        """True if a task on any node can read the files."""
        return are_portable(file for file, _ in self.files)

    def read(self, first: int, rows: int) -> Iterator[pa.Table]:
        """Yield rows `first` to `first + rows`, a row group at a time; others are skipped."""
        end = first + rows
        for file, count in self.files:
            if first < count and end > 0:
                yield from _read_file(file.local(), self.columns, max(first, 0), min(end, count))
            first, end = first - count, end - count


def row_files(paths: Sequence[Path], columns: Sequence[str] | None = None) -> RowFiles:
    """Describe files; their numbers of rows are read from the footers."""
    return _counted([ShardFile(path) for path in paths], columns)


def dataset_files(folder: str | Path, columns: Sequence[str] | None = None) -> RowFiles:
    """Describe a dataset; its numbers of rows are in the manifest, if it has one."""
    return _counted(shard_files(folder), columns)


def _counted(files: Sequence[ShardFile], columns: Sequence[str] | None) -> RowFiles:
    return RowFiles(tuple((file, file.rows) for file in files), None if columns is None else tuple(columns))


def _read_file(path: Path, columns: tuple[str, ...] | None, first: int, end: int) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if first < rows and end > 0:
                names = None if columns is None else list(columns)
                table = file.read_row_group(number, columns=names, use_threads=False)
                yield table.slice(max(first, 0), min(end, rows) - max(first, 0))
            first, end = first - rows, end - rows
