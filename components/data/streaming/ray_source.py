"""Ray Data source: one read task per shard.

Nodes either share the files, or the caller restricts the tasks to the node that has them (`ray_data_settings`). Ray
Data's own restriction to one node is not used: it asks for free CPUs of the head, which often has none for tasks.
"""

from __future__ import annotations

from typing import Any

from ray.data import DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from raypath.components.data.streaming.shard import Shard


class ShardSource(Datasource):  # type: ignore[misc]
    """Datasource that reads shards in order."""

    def __init__(self, shards: list[Shard]) -> None:
        super().__init__()
        self.shards = shards

    def get_name(self) -> str:
        return "Shards"

    def estimate_inmemory_data_size(self) -> int:
        return sum(shard.bytes for shard in self.shards) * 3

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[Any]:
        """Create one task per shard whatever the parallelism, since a shard is read from its start."""
        return [ReadTask(shard, _size(shard)) for shard in self.shards]


def _size(shard: Shard) -> BlockMetadata:
    return BlockMetadata(num_rows=None, size_bytes=shard.bytes * 3, input_files=None, exec_stats=None)
