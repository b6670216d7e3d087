"""Parquet files of a dataset in row order: on this machine, or in object storage until they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components.data.streaming.manifest import WrittenShard, read_manifest
from raypath.components.data.streaming.shard import Shard
from raypath.components.data.streaming.shard_cache import cached
from raypath.components.data.streaming.shard_storage import Origin, fetched, read_origin


@dataclass(frozen=True)
class ShardFile:
    """One file; a `Shard` for `stream_tables`, pickled to tasks. written: its line in the manifest, if there is one."""

    path: Path
    written: WrittenShard | None = None
    origin: Origin | None = None

    def __call__(self) -> Iterator[pa.Table]:
        yield from scan_file(self)

    @contextmanager
    def local(self) -> Iterator[Path]:
        """Yield the path of the file on this machine, where it remains meanwhile; it is fetched when it is not here."""
        if self.origin is None or self.written is None:
            yield self.path
            return
        with fetched(self.origin, self.written) as path:
            yield path

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the file, which is fetched when it is not here."""
        with self.local() as path, pq.ParquetFile(path, pre_buffer=False) as file:
            yield file

    @property
    def is_here(self) -> bool:
        """True if the file is on this machine."""
        return self.origin is None or self.written is None or cached(self.origin.cache, self.written.sha256).is_file()

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size if self.written is None else self.written.bytes

    @property
    def rows(self) -> int:
        return int(pq.read_metadata(self.path).num_rows) if self.written is None else self.written.rows


def are_portable(shards: Iterable[Shard]) -> bool:
    """Return True for shards in object storage, which tasks on any node can read."""
    return all(isinstance(shard, ShardFile) and shard.origin is not None for shard in shards)


def shard_files(folder: str | Path) -> list[ShardFile]:
    """List the files of a dataset."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        return [ShardFile(path) for path in sorted(folder.glob("*.parquet"))]
    origin = read_origin(folder)
    return [ShardFile(folder / shard.name, shard, origin) for shard in manifest.shards]


def scan_file(shard: ShardFile, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of one file in order."""
    names = None if columns is None else list(columns)
    with shard.open() as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns=names, use_threads=False)
