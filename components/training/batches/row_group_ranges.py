"""Row groups of shards in object storage, read by their range of bytes: a training needs no disk for its rows.

The first pass over the rows fetches and verifies whole shards. It keeps a digest of each range, by which later reads of
the range alone are verified.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raypath.components.core.errors import RaypathError
from raypath.components.data.streaming.shard_files import ShardFile
from raypath.components.data.streaming.shard_storage import bucket_of


@dataclass(frozen=True)
class GroupRange:
    """Bytes of some columns of a row group. metadata: of the file; digest: of the bytes."""

    shard: ShardFile
    group: int
    columns: tuple[str, ...]
    metadata: Any
    start: int
    size: int
    digest: bytes

    @classmethod
    def of(cls, shard: ShardFile, file: Any, handle: int, group: int, columns: Sequence[str]) -> GroupRange:
        """Describe a row group of an open file. handle: to read its bytes."""
        found = file.metadata.row_group(group)
        chunks = [found.column(n) for n in range(found.num_columns)]
        chunks = [each for each in chunks if each.path_in_schema.split(".")[0] in columns]
        start = min(_start(each) for each in chunks)
        size = max(_start(each) + each.total_compressed_size for each in chunks) - start
        digest = _digest(os.pread(handle, size, start))
        return cls(shard, group, tuple(columns), file.metadata, start, size, digest)

    def read(self) -> Any:
        """Read the columns from object storage as a table; None if the bytes are not those of the first pass."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        origin, written = self.shard.origin, self.shard.written
        assert origin is not None
        assert written is not None
        try:
            data = bucket_of(origin.address).read_range(origin.name(written), self.start, self.size)
        except (FileNotFoundError, RaypathError):
            return None
        if _digest(data) != self.digest:
            return None
        source = pa.PythonFile(_Range(data, self.start, written.bytes), mode="r")
        with pq.ParquetFile(source, metadata=self.metadata, pre_buffer=False) as file:
            return file.read_row_group(self.group, columns=list(self.columns), use_threads=False)


class _Range(io.RawIOBase):
    """A file of `size` bytes of which only those from `start` on are there."""

    def __init__(self, data: bytes, start: int, size: int) -> None:
        super().__init__()
        self._data, self._start, self._size, self._at = data, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        first = self._at - self._start
        found = self._data[first : first + size if size >= 0 else None]
        self._at += len(found)
        return found


def _start(chunk: Any) -> int:
    """Offset of a column's first page: of its dictionary, if it has one."""
    offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
    return min(int(each) for each in offsets if each is not None)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
