"""Protocol of a shard of rows, as the steps read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa


class Shard(Protocol):
    """Something that can be sent to a worker and called there for its rows."""

    @property
    def bytes(self) -> int: ...

    def __call__(self) -> Iterator[pa.Table]: ...
