"""Run the chunks of a batch step, here or with Ray Data, report progress, and join their results.

A finished chunk is a file in the step's scratch folder, so that an interrupted step resumes with the remaining chunks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from raypath.components.core.context import Context
from raypath.components.core.errors import RaypathError, Unavailable, kinds
from raypath.components.data.streaming.row_files import RowFiles
from raypath.components.inference.batch.chunk_worker import ChunkJob, ChunkWorker


def run_chunks(ctx: Context, job: ChunkJob, worker: type[ChunkWorker[Any]], actors: int) -> None:
    """Run the chunks that have no result yet, by `actors` workers of Ray Data, or for 0 in this process."""
    done = job.results.finished()
    left = [chunk.number for chunk in job.chunks if chunk.number not in done]
    throughput = Throughput(ctx, job.rows.rows, sum(job.chunks[number].rows for number in done))
    if left:
        for result in _with_ray(ctx, job, worker, left, min(actors, len(left))) if actors else _here(job, worker, left):
            job.results.record(result["chunk"], result["made"])
            throughput.add(result["rows"], result["began"], result["ended"])
    throughput.log()


def _here(job: ChunkJob, worker: type[ChunkWorker[Any]], numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Run chunks in this process; yields the result of each once its file is written."""
    made = worker(job)
    for number in numbers:
        yield made.run(number)


def _with_ray(
    ctx: Context, job: ChunkJob, worker: type[ChunkWorker[Any]], numbers: list[int], actors: int
) -> Iterator[dict[str, Any]]:
    """Run chunks with Ray Data, which restarts crashed workers and retries their chunks."""
    import ray.data
    from ray.exceptions import RayError

    from raypath.components.data.streaming.stream import ray_data_settings

    anywhere = job.results.storage is not None
    with ray_data_settings(ctx.task_workers(anywhere), anywhere=anywhere):
        try:
            # A block is the number of a chunk: the worker reads the rows.
            items = [{"chunk": number} for number in numbers]
            lines = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                worker,
                fn_constructor_args=(job,),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
                # On one node the step, which only waits, has reserved the CPUs.
                num_cpus=1 if anywhere and not ctx.gpus else 0,
                num_gpus=1 if ctx.gpus else 0,
            )
            for table in lines.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for line in table.to_pylist():
                    if line["error"]:
                        raise kinds()[line["error"]](line["what"], fix=line["fix"])
                    yield line
        except (RayError, RuntimeError) as error:
            raise worker_error(error) from None


class Throughput:
    """Throughput and remaining time. done: rows that an earlier attempt finished."""

    def __init__(self, ctx: Context, total: int, done: int) -> None:
        self.ctx, self.total, self.before = ctx, total, done
        self.rows = 0
        self.called, self.first, self.last = time.time(), 0.0, 0.0
        ctx.report(done, total, f"{done:,} rows were finished before" if done else "loading the model")

    def add(self, rows: int, began: float, ended: float) -> None:
        self.first = min(self.first or began, began)
        self.last = max(self.last, ended)
        self.rows += rows
        done = self.before + self.rows
        rest = (self.total - done) / self.rate
        self.ctx.report(done, self.total, f"{done:,} rows, {self.rate:,.0f} rows/s, {clock(rest)} left")

    @property
    def rate(self) -> float:
        """Rows per second since the first worker was ready."""
        return self.rows / max(self.last - self.first, 1e-6)

    def log(self) -> None:
        """Log the metrics of this attempt."""
        if self.rows:
            metrics = {"rows_per_second": self.rate, "start_seconds": self.first - self.called}
            self.ctx.track.metrics({**metrics, "rows_computed": float(self.rows)})


def clock(seconds: float) -> str:
    """Format a time: 1:02:05, or 0:59 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def merge_chunks(ctx: Context, results: RowFiles, prefix: str = "predictions-") -> None:
    """Merge the results of all chunks to files of a fixed number of rows, PREFIX00000.parquet and so on."""
    from raypath.components.data.streaming import stream
    from raypath.components.data.streaming.parquet import TableWriter
    from raypath.components.data.streaming.shard_tasks import STAGING, Output, publish, write_shards

    if sum(file.bytes for file, _ in results.files) >= stream.INLINE_BYTES:
        with results.files[0][0].open() as file:
            schema = file.schema_arrow
        written = write_shards(ctx, {"": Output(results, schema)})
        return publish(ctx, written[""], ctx.scratch / STAGING, ctx.out, prefix)
    tables = results.read(0, results.rows)
    first = next(tables)
    with TableWriter(ctx.out, first.schema) as writer:
        writer.write(first)
        for table in tables:
            writer.write(table)
    for path in sorted(ctx.out.glob("*.parquet")):
        path.rename(ctx.out / f"{prefix}{path.name}")


def worker_error(error: Exception) -> BaseException:
    """Return the error that a worker raised; Unavailable, which is retried, if the workers crashed."""
    from raypath.components.data.streaming.ray_errors import out_of_memory, unwrap, worker_died

    found = unwrap(error)
    if worker_died(error) and not isinstance(found, RaypathError):
        what = out_of_memory(str(error)) or "the prediction workers crashed"
        return Unavailable(what, fix="run the same command again")
    return found
