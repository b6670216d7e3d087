"""Parquet files as one sequence of rows, of which a task reads a range."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from raypath.components.core.context import ShardStorage
from raypath.components.data.streaming.manifest import WrittenShard
from raypath.components.data.streaming.shard_files import ShardFile, are_portable, shard_files
from raypath.components.data.streaming.shard_storage import Origin, upload_copy


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
                yield from _read_file(file, self.columns, max(first, 0), min(end, count))
            first, end = first - count, end - count


def row_files(paths: Sequence[Path], columns: Sequence[str] | None = None) -> RowFiles:
    """Describe files; their numbers of rows are read from the footers."""
    return _counted([ShardFile(path) for path in paths], columns)


def stored_files(storage: ShardStorage, shards: Iterable[WrittenShard]) -> RowFiles:
    """Describe files that tasks uploaded."""
    origin = Origin.of(storage)
    return _counted([ShardFile(storage.cache / shard.name, shard, origin) for shard in shards], None)


def uploaded(storage: ShardStorage, source: RowFiles, staging: Path) -> RowFiles:
    """Upload files of this machine, so that tasks on any node can read their rows. staging: a folder beside them."""
    shards = []
    for number, (file, rows) in enumerate(source.files):
        with file.local() as path:
            shards.append(upload_copy(storage, path, staging / f"{number:05d}.parquet", rows))
    return replace(stored_files(storage, shards), columns=source.columns)


def dataset_files(folder: str | Path, columns: Sequence[str] | None = None) -> RowFiles:
    """Describe a dataset; its numbers of rows are in the manifest, if it has one."""
    return _counted(shard_files(folder), columns)


def _counted(files: Sequence[ShardFile], columns: Sequence[str] | None) -> RowFiles:
    return RowFiles(tuple((file, file.rows) for file in files), None if columns is None else tuple(columns))


def _read_file(shard: ShardFile, columns: tuple[str, ...] | None, first: int, end: int) -> Iterator[pa.Table]:
    with shard.open() as file:
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if first < rows and end > 0:
                names = None if columns is None else list(columns)
                table = file.read_row_group(number, columns=names, use_threads=False)
                yield table.slice(max(first, 0), min(end, rows) - max(first, 0))
            first, end = first - rows, end - rows
