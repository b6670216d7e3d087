"""Rows from files through a function, in order, never all at once: here when they are few, by Ray Data when many.

Ray Data spreads the work over cores and nodes, but takes some seconds and half a gigabyte for its workers, so small
data does better in the step's own process, where the tokenizer has threads of its own. Both ways give the same rows
in the same order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from raypath.components.data.streaming.ray_errors import unwrap
from raypath.components.data.streaming.shard import Shard

INLINE_BYTES = 32 << 20
"""Below this much input Ray Data would cost more than it saves."""
BATCH_ROWS = 1_024
_SETTINGS = {"enable_progress_bars": False, "print_on_execution_start": False, "target_max_block_size": 8 << 20}

Change = Callable[[pa.Table], pa.Table]


def stream_tables(
    shards: Sequence[Shard], workers: int, change: Change | None = None, *, inline: bool | None = None
) -> Generator[pa.Table, None, None]:
    """All rows of `shards` in order, changed by `change`.

    inline: stream here (True) or by Ray Data (False); None decides by size. Errors of ours come out as themselves.
    """
    if inline is None:
        inline = len(shards) < 2 or sum(shard.bytes for shard in shards) < INLINE_BYTES
    yield from _here(shards, change) if inline else _by_ray(shards, workers, change)


def _here(shards: Sequence[Shard], change: Change | None) -> Iterator[pa.Table]:
    for shard in shards:
        for table in shard():
            yield table if change is None else change(table)


def _by_ray(shards: Sequence[Shard], workers: int, change: Change | None) -> Iterator[pa.Table]:
    import ray.data
    import ray.exceptions

    from raypath.components.data.streaming.ray_source import ShardSource

    with quiet(workers):
        try:
            rows = ray.data.read_datasource(ShardSource(list(shards)), override_num_blocks=len(shards))
            if change is not None:
                rows = rows.map_batches(change, batch_format="pyarrow", batch_size=BATCH_ROWS, zero_copy_batch=True)
            yield from rows.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=1)
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise unwrap(error) from None


@contextmanager
def quiet(workers: int) -> Iterator[None]:
    """Ray Data in order, within our cores, in small blocks, and without a line on the terminal."""
    from ray.data import DataContext, ExecutionOptions, ExecutionResources

    settings, logger = DataContext.get_current(), logging.getLogger("ray.data")
    options, level = settings.execution_options, logger.level
    before = {name: getattr(settings, name) for name in _SETTINGS}
    limits = ExecutionResources.for_limits(cpu=max(workers, 1))
    logger.setLevel(logging.CRITICAL)
    try:
        # Where the work may go was said before, if it was.
        where = options.label_selector
        settings.execution_options = ExecutionOptions(preserve_order=True, resource_limits=limits, label_selector=where)
        for name, value in _SETTINGS.items():
            setattr(settings, name, value)
        yield
    finally:
        settings.execution_options = options
        for name, value in before.items():
            setattr(settings, name, value)
        logger.setLevel(level)
