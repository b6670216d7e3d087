"""Tasks of Ray Data that return a line of text each: writers of files, whose rows stay in the task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raypath.components.core.context import Context
from raypath.components.core.errors import RaypathError, Unavailable, kinds
from raypath.components.data.streaming.ray_errors import out_of_memory, unwrap, worker_died
from raypath.components.data.streaming.stream import ray_data_settings

Item = dict[str, Any]
RESULT = pa.schema({"name": pa.string(), "made": pa.string(), "error": pa.string()})


@dataclass(frozen=True)
class _Task:
    """Map function of Ray Data. A RaypathError is returned, since Ray keeps only the text of an error in a function."""

    call: Callable[[Item], tuple[str, str]]

    def __call__(self, items: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._line(item) for item in items.to_pylist()], RESULT)

    def _line(self, item: Item) -> dict[str, str]:
        try:
            name, made = self.call(item)
            return {"name": name, "made": made, "error": ""}
        except RaypathError as error:
            return {"name": error.what, "made": error.fix, "error": type(error).__name__}


def run_tasks(
    call: Callable[[Item], tuple[str, str]], items: list[Item], ctx: Context, anywhere: bool = False
) -> Iterator[tuple[str, str]]:
    """Call a picklable object with each item in a task of Ray Data; yield what it returns as tasks end.

    anywhere: tasks need no file of the step's node.
    """
    import ray.data
    import ray.exceptions

    if not items:
        return
    with ray_data_settings(ctx.task_workers(anywhere), ordered=False, anywhere=anywhere):
        try:
            lines = ray.data.from_items(items, override_num_blocks=len(items))
            done = lines.map_batches(_Task(call), batch_format="pyarrow", batch_size=1)
            for table in done.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=0):
                for line in table.to_pylist():
                    if line["error"]:
                        raise kinds().get(line["error"], RaypathError)(line["name"], fix=line["made"])
                    yield line["name"], line["made"]
        except RaypathError:
            raise
        except (ray.exceptions.RayError, RuntimeError) as error:
            cause = unwrap(error)
            if worker_died(error) and not isinstance(cause, RaypathError):
                what = out_of_memory(str(error)) or "the workers that write rows crashed"
                raise Unavailable(what, fix="run the same command again") from None
            raise cause from None
