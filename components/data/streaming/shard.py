"""Protocol of a shard: a picklable source of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa


class Shard(Protocol):
    """A source of rows that is pickled to a worker and called there. bytes: its size on disk."""

    @property
    def bytes(self) -> int: ...

    def __call__(self) -> Iterator[pa.Table]: ...
