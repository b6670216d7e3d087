"""Stream rows from shards through a transform, in order: in the step's process for small data, else with Ray Data.

Ray Data distributes the work over cores and nodes, but its workers take seconds to start and half a gigabyte, so small
data is faster in the step's process, where the tokenizer uses threads of its own. Both give the same rows in the same
order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from raypath.components.core.context import Context
from raypath.components.data.streaming.ray_errors import unwrap
from raypath.components.data.streaming.shard import Shard
from raypath.components.data.streaming.shard_files import are_portable

INLINE_BYTES = 32 << 20
"""Input below which Ray Data costs more than it saves."""
BATCH_ROWS = 1_024
_SETTINGS = {"enable_progress_bars": False, "print_on_execution_start": False, "target_max_block_size": 8 << 20}

Transform = Callable[[pa.Table], pa.Table]


def stream_tables(
    shards: Sequence[Shard], ctx: Context, transform: Transform | None = None
) -> Generator[pa.Table, None, None]:
    """Yield all rows of `shards` in order, each table passed through `transform`.

    A RaypathError of a worker is raised here with its own type.
    """
    yield from _stream_inline(shards, transform) if is_small(shards) else _stream_with_ray(shards, ctx, transform)


def is_small(shards: Sequence[Shard]) -> bool:
    """Return True if the step's process streams the shards faster than Ray Data; a single shard is never divided."""
    return len(shards) < 2 or sum(shard.bytes for shard in shards) < INLINE_BYTES


def _stream_inline(shards: Sequence[Shard], transform: Transform | None) -> Iterator[pa.Table]:
    for shard in shards:
        for table in shard():
            yield table if transform is None else transform(table)


def _stream_with_ray(shards: Sequence[Shard], ctx: Context, transform: Transform | None) -> Iterator[pa.Table]:
    import ray.data
    import ray.exceptions

    from raypath.components.data.streaming.ray_source import ShardSource

    anywhere = are_portable(shards)
    with ray_data_settings(ctx.task_workers(anywhere), anywhere=anywhere):
        try:
            rows = ray.data.read_datasource(ShardSource(list(shards)), override_num_blocks=len(shards))
            if transform is not None:
                rows = rows.map_batches(transform, batch_format="pyarrow", batch_size=BATCH_ROWS, zero_copy_batch=True)
            yield from rows.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=1)
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise unwrap(error) from None


@contextmanager
def ray_data_settings(workers: int, ordered: bool = True, anywhere: bool = False) -> Iterator[None]:
    """Configure Ray Data: at most `workers` cores, small blocks, no output on the terminal.

    ordered: yield blocks in the order of the input, else as they are finished. anywhere: also on other nodes than the
    one that the step is restricted to.
    """
    from ray.data import DataContext, ExecutionOptions, ExecutionResources

    settings, logger = DataContext.get_current(), logging.getLogger("ray.data")
    options, level = settings.execution_options, logger.level
    before = {name: getattr(settings, name) for name in _SETTINGS}
    limits = ExecutionResources.for_limits(cpu=max(workers, 1))
    logger.setLevel(logging.CRITICAL)
    try:
        # The caller may have set the nodes that the work is restricted to.
        settings.execution_options = ExecutionOptions(
            preserve_order=ordered, resource_limits=limits, label_selector={} if anywhere else options.label_selector
        )
        for name, value in _SETTINGS.items():
            setattr(settings, name, value)
        yield
    finally:
        settings.execution_options = options
        for name, value in before.items():
            setattr(settings, name, value)
        logger.setLevel(level)
