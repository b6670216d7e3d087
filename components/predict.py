"""Batch prediction of a dataset: Ray Data distributes chunks of rows to workers that have loaded the model.

A finished chunk is a file in the step's scratch folder, so that an interrupted step resumes with the remaining chunks.
The output has the order of the input and is byte-identical, with or without interruptions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import inputs_of
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import ParamsError, RaypathError, Unavailable, kinds
from raypath.components.core.params import NonNegative, Params, Positive, Source
from raypath.components.core.uris import scheme

if TYPE_CHECKING:
    from raypath.components.data.streaming.row_files import RowFiles
    from raypath.components.inference.batch.worker import PredictionJob

FEW_ROWS = 1_024
"""Up to this number, rows are predicted in the step's own process: starting workers would take longer."""
SPARE_BYTES = 1 << 30
"""Memory of a worker in addition to four times the size of the weights."""


class PredictParams(Params):
    """Model, chunk size, workers and output columns."""

    model: Source = ""
    """Model folder, or models:/NAME/VERSION or models:/NAME@champion in the registry."""
    batch: Positive = 2048
    """Rows in a chunk, which is sorted by length and written as a file; an interruption loses the current chunks."""
    actors: NonNegative = 0
    """Number of workers, which share this machine's cores; 0: one per GPU, or per core as far as memory allows."""
    tasks: tuple[str, ...] = ()
    """Tasks of your own, package.module:Class, that the model may have."""
    scores: bool = False
    """Add the column `scores` with the probabilities of all classes, for tasks that have it."""
    text: bool = True
    """Copy the texts to the output."""


@component(version=2, by_shard=True)
def predict(ctx: Context, data: Dataset, params: PredictParams) -> Dataset:
    """Predict `data` in order and add the task's columns, such as `predicted` (a class) and `score` (its probability).

    Writes predictions-00000.parquet and so on, 65,536 rows each. Columns `label` and `id` are kept; without an id,
    `row` is the number of each row of the source from 1. Raises ParamsError without a model, DataError for a model that
    does not open or a dataset without its input columns, StoreError if the disk is full.
    """
    from raypath.components.inference.batch.chunks import on_any_node, plan_chunks, text_rows
    from raypath.components.inference.batch.results import Results
    from raypath.components.inference.batch.worker import PredictionJob, model_folder
    from raypath.components.models.metadata import read_metadata
    from raypath.components.tasks.catalog import check_task

    if not params.model:
        raise ParamsError("setting model got nothing", fix="set a model folder, or models:/NAME@champion")
    folder = model_folder(params.model, ctx.tracking.uri, ctx.signing)
    metadata = read_metadata(folder)
    check_task(metadata, params.tasks)
    rows = text_rows(data, inputs_of(metadata.columns))
    anywhere = rows.rows > FEW_ROWS and ctx.part_storage is not None and scheme(params.model) == "models:/"
    actors = params.actors or _actors(ctx, folder, rows.rows, anywhere)
    chunks = tuple(plan_chunks(rows.rows, params.batch))
    threads = 1 if anywhere else max(1, ctx.workers // max(actors, 1))
    results = Results(ctx.scratch / "chunks", ctx.part_storage if anywhere else None)
    job = PredictionJob(
        source=params.model,
        tracking=ctx.tracking.uri,
        signing=ctx.signing,
        tasks=params.tasks,
        workers=actors,
        threads=threads,
        scores=params.scores,
        text=params.text,
        rows=on_any_node(rows, ctx.part_storage, ctx.scratch / ".staged") if anywhere else rows,
        chunks=chunks,
        results=results,
        attempts=ctx.scratch / ".attempts" / ctx.out.name,
    )
    _compute(ctx, job, results.finished(), actors)
    ctx.report(rows.rows, rows.rows, "writing")
    _merge(ctx, results.files())
    ctx.track.metrics({"rows": float(rows.rows)})
    return Dataset(rows=rows.rows, labels=metadata.labels, label_kind=metadata.label_kind, source=data.source)


def _actors(ctx: Context, folder: Path, rows: int, anywhere: bool) -> int:
    """Return the number of workers: 0 for few rows, else one per GPU, or one per core as far as Ray's memory allows.

    Two workers with one thread each are faster than one worker with two. anywhere: on all nodes.
    """
    import ray

    if rows <= FEW_ROWS:
        return 0
    if ctx.gpus:
        return max(ctx.gpus, int(ray.cluster_resources().get("GPU", 0)) if anywhere else 0)
    weights = max((path.stat().st_size for path in folder.iterdir()), default=0)
    memory = ray.cluster_resources().get("memory", 0.0)
    return max(1, min(ctx.task_workers(anywhere), int(memory // (4 * weights + SPARE_BYTES))))


def _compute(ctx: Context, job: PredictionJob, done: set[int], actors: int) -> None:
    """Predict the remaining chunks and report progress."""
    left = [chunk.number for chunk in job.chunks if chunk.number not in done]
    throughput = _Throughput(ctx, job.rows.rows, sum(job.chunks[number].rows for number in done))
    if left:
        for result in (
            _predict_with_ray(ctx, job, left, min(actors, len(left))) if actors else _predict_locally(job, left)
        ):
            job.results.record(result["chunk"], result["made"])
            throughput.add(result["rows"], result["began"], result["ended"])
    throughput.log()


def _predict_locally(job: PredictionJob, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Predict chunks in this process; yields the result of each once its file is written."""
    from raypath.components.inference.batch.worker import Predictor

    worker = Predictor(job)
    for number in numbers:
        yield worker.run(number)


def _predict_with_ray(ctx: Context, job: PredictionJob, numbers: list[int], actors: int) -> Iterator[dict[str, Any]]:
    """Predict chunks with Ray Data, which restarts crashed workers and retries their chunks."""
    import ray.data
    from ray.exceptions import RayError

    from raypath.components.data.streaming.stream import ray_data_settings
    from raypath.components.inference.batch.worker import Predictor

    anywhere = job.results.storage is not None
    with ray_data_settings(ctx.task_workers(anywhere), anywhere=anywhere):
        try:
            # A block is the number of a chunk: the worker reads the rows.
            items = [{"chunk": number} for number in numbers]
            lines = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                Predictor,
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
            raise _worker_error(error) from None


class _Throughput:
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
        self.ctx.report(done, self.total, f"{done:,} rows, {self.rate:,.0f} rows/s, {_clock(rest)} left")

    @property
    def rate(self) -> float:
        """Rows per second since the first worker was ready."""
        return self.rows / max(self.last - self.first, 1e-6)

    def log(self) -> None:
        """Log the metrics of this attempt."""
        if self.rows:
            metrics = {"rows_per_second": self.rate, "start_seconds": self.first - self.called}
            self.ctx.track.metrics({**metrics, "rows_computed": float(self.rows)})


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _merge(ctx: Context, results: RowFiles) -> None:
    """Merge the results of all chunks to files of a fixed number of rows."""
    from raypath.components.data.streaming import stream
    from raypath.components.data.streaming.parquet import TableWriter
    from raypath.components.data.streaming.shard_tasks import STAGING, Output, publish, write_shards

    if sum(file.bytes for file, _ in results.files) >= stream.INLINE_BYTES:
        with results.files[0][0].open() as file:
            schema = file.schema_arrow
        written = write_shards(ctx, {"": Output(results, schema)})
        return publish(ctx, written[""], ctx.scratch / STAGING, ctx.out, "predictions-")
    tables = results.read(0, results.rows)
    first = next(tables)
    with TableWriter(ctx.out, first.schema) as writer:
        writer.write(first)
        for table in tables:
            writer.write(table)
    for path in sorted(ctx.out.glob("*.parquet")):
        path.rename(ctx.out / f"predictions-{path.name}")


def _worker_error(error: Exception) -> BaseException:
    """Return the error that a worker raised; Unavailable, which is retried, if the workers crashed."""
    from raypath.components.data.streaming.ray_errors import out_of_memory, unwrap, worker_died

    found = unwrap(error)
    if worker_died(error) and not isinstance(found, RaypathError):
        what = out_of_memory(str(error)) or "the prediction workers crashed"
        return Unavailable(what, fix="run the same command again")
    return found
