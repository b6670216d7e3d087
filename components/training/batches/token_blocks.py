"""Row groups of a preprocessed dataset: the unit in which training reads rows. A few are cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True)
class TokenBlock:
    """Rows of one row group: ids int32 [sum of lengths]; offsets int64 [N + 1]; features float32 [N, H] or None.

    targets: the column `target` as Arrow stores it, None without one or where it is not needed. weights: float32 [N],
    None in the same cases.
    """

    ids: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    features: np.ndarray[Any, Any] | None
    targets: Any = None
    weights: np.ndarray[Any, Any] | None = None

    @property
    def size(self) -> int:
        """Numbers in memory, of four bytes each."""
        return len(self.ids) + (0 if self.features is None else self.features.size)


@dataclass(frozen=True)
class BlockPlace:
    """Location of a row group."""

    path: Path
    group: int

    def read(self, *extra: str) -> TokenBlock:
        """Read `input_ids`, `features` if there are any, and the `extra` columns that exist."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            names = [name for name in ("input_ids", "features", *extra) if name in file.schema_arrow.names]
            return to_block(file.read_row_group(self.group, columns=names, use_threads=False))


def to_block(table: Any) -> TokenBlock:
    """Convert a table to arrays."""
    lists = table["input_ids"].combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    features = None
    if "features" in table.column_names:
        flat = table["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        features = np.asarray(flat, np.float32).reshape(len(table), -1)
    return TokenBlock(
        ids=np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        features=features,
        targets=table["target"] if "target" in table.column_names else None,
        weights=table["weight"].to_numpy().astype(np.float32) if "weight" in table.column_names else None,
    )


def places(files: list[Path]) -> Iterator[BlockPlace]:
    """List the row groups of files in row order."""
    import pyarrow.parquet as pq

    for path in files:
        yield from (BlockPlace(path, group) for group in range(pq.read_metadata(path).num_row_groups))


class Blocks(NamedTuple):
    """Units in which rows are read, in row order: a window has as many as fit in the memory for one."""

    starts: np.ndarray[Any, Any]
    """Numbers of their first rows, and the end, int64 [B + 1]."""
    sizes: np.ndarray[Any, Any]
    """Numbers of four bytes that each takes in memory, int64 [B]."""
    window: int
    """Such numbers in a window."""


class BlockCache:
    """The blocks read last, at most `limit` numbers of four bytes in total, but at least one block."""

    def __init__(self, blocks: list[BlockPlace], limit: int) -> None:
        self.blocks, self.limit = blocks, limit
        self.size = self.reads = 0
        self._cached: OrderedDict[int, TokenBlock] = OrderedDict()

    def __getitem__(self, number: int) -> TokenBlock:
        found = self._cached.get(number)
        if found is not None:
            self._cached.move_to_end(number)
            return found
        found = self.blocks[number].read()
        self.reads += 1
        while self._cached and self.size + found.size > self.limit:
            self.size -= self._cached.popitem(last=False)[1].size
        self._cached[number] = found
        self.size += found.size
        return found
