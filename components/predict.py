"""Predict a dataset offline: Ray Data hands parts of it to workers that each hold the model.

A finished part is a file in the step's scratch folder, so that a step which was killed goes on with the parts that are
left. The rows come out in the order they went in, and in the same bytes, however often it was killed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.artifacts import Dataset
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import ParamsError, RaypathError, Unavailable, kinds
from raypath.components.core.params import NonNegative, Params, Positive, Source

if TYPE_CHECKING:
    from raypath.components.inference.batch.worker import PredictionJob

FEW_ROWS = 1_024
"""So many are predicted in the step's own process: workers would take longer to start than they save."""
SPARE_BYTES = 1 << 30
"""Memory that a worker needs beside four times the model's weights."""


class PredictParams(Params):
    """Which model, and how much at a time."""

    model: Source = ""
    """A model folder, or models:/NAME/VERSION or models:/NAME@champion of the registry."""
    batch: Positive = 2048
    """Rows in a part, which a worker sorts by length and writes as a file; a kill costs the parts under way."""
    actors: NonNegative = 0
    """Workers that hold the model and share this machine's cores; 0: one a GPU, else one a core as memory allows."""
    scores: bool = False
    """Add the column `scores`, where the task has one: the probability of every class, in the order of the classes."""
    text: bool = True
    """Copy the texts to the output."""


@component(version=2)
def predict(ctx: Context, data: Dataset, params: PredictParams) -> Dataset:
    """`data` in the same order with the task's columns, such as `predicted` (a class) and `score` (its probability).

    Writes predictions-00000.parquet and so on, 65,536 rows each. A column `label` is kept where there is one.
    Raises ParamsError without a model, DataError for one that does not open or a dataset without texts, StoreError
    when the disk is full.
    """
    from raypath.components.inference.batch.chunks import finished, plan, rows_of
    from raypath.components.inference.batch.worker import PredictionJob, model_folder
    from raypath.components.models.metadata import read_metadata

    if not params.model:
        raise ParamsError("setting model got nothing", fix="give a model folder, or models:/NAME@champion")
    folder = model_folder(params.model, ctx.tracking.uri)
    metadata = read_metadata(folder)
    rows, out = rows_of(data), ctx.scratch / "parts"
    out.mkdir(mode=0o700, exist_ok=True)
    actors = params.actors or _actors(ctx, folder, rows.rows)
    parts = tuple(plan(rows.rows, params.batch))
    threads = max(1, ctx.workers // max(actors, 1))
    job = PredictionJob(params.model, ctx.tracking.uri, actors, threads, params.scores, params.text, rows, parts, out)
    _compute(ctx, job, set(finished(out)), actors)
    ctx.report(rows.rows, rows.rows, "writing")
    _join(ctx, out)
    ctx.track.metrics({"rows": float(rows.rows)})
    return Dataset(rows=rows.rows, labels=metadata.labels, label_kind=metadata.label_kind, source=data.source)


def _actors(ctx: Context, folder: Path, rows: int) -> int:
    """Workers to start: none for few rows, else one a GPU, or one a core where Ray's memory holds the model as often.

    Two of one thread are faster than one of two.
    """
    import ray

    if rows <= FEW_ROWS:
        return 0
    if ctx.gpus:
        return ctx.gpus
    weights = max((path.stat().st_size for path in folder.iterdir()), default=0)
    memory = ray.cluster_resources().get("memory", 0.0)
    return max(1, min(ctx.workers, int(memory // (4 * weights + SPARE_BYTES))))


def _compute(ctx: Context, job: PredictionJob, done: set[int], actors: int) -> None:
    """Make the parts that are not done, and tell of the progress."""
    left = [part.number for part in job.parts if part.number not in done]
    pace = _Pace(ctx, job.rows.rows, sum(job.parts[number].rows for number in done))
    if left:
        for made in _by_ray(ctx, job, left, min(actors, len(left))) if actors else _here(job, left):
            pace.add(made["rows"], made["began"], made["ended"])
    pace.note()


def _here(job: PredictionJob, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Compute parts by their numbers in this process: a line for each, once its file is written."""
    from raypath.components.inference.batch.worker import Predictor

    worker = Predictor(job)
    for number in numbers:
        yield worker.make(number)


def _by_ray(ctx: Context, job: PredictionJob, numbers: list[int], actors: int) -> Iterator[dict[str, Any]]:
    """The same by Ray Data, which starts a worker that died again, and gives it its part once more."""
    import ray.data
    from ray.exceptions import RayError

    from raypath.components.data.streaming.stream import ray_data_settings
    from raypath.components.inference.batch.worker import Predictor

    with ray_data_settings(ctx.workers):
        try:
            # A part is one block of one number: its rows are read where they are computed.
            items = [{"part": number} for number in numbers]
            lines = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                Predictor,
                fn_constructor_args=(job,),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
                # Workers share the machine with nobody but the step, which waits.
                num_cpus=0,
                num_gpus=1 if ctx.gpus else 0,
            )
            for table in lines.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for line in table.to_pylist():
                    if line["error"]:
                        raise kinds()[line["error"]](line["what"], fix=line["fix"])
                    yield line
        except (RayError, RuntimeError) as error:
            raise _worker_error(error) from None


class _Pace:
    """Rows done, in how much time, and how long the rest will take. done: rows that an earlier attempt has left."""

    def __init__(self, ctx: Context, total: int, done: int) -> None:
        self.ctx, self.total, self.before = ctx, total, done
        self.rows = 0
        self.called, self.first, self.last = time.time(), 0.0, 0.0
        ctx.report(done, total, f"{done:,} rows were done before" if done else "loading the model")

    def add(self, rows: int, began: float, ended: float) -> None:
        self.first = min(self.first or began, began)
        self.last = max(self.last, ended)
        self.rows += rows
        done = self.before + self.rows
        rest = (self.total - done) / self.rate
        self.ctx.report(done, self.total, f"{done:,} rows, {self.rate:,.0f} rows/s, {_clock(rest)} left")

    @property
    def rate(self) -> float:
        """Rows a second since the first worker was ready."""
        return self.rows / max(self.last - self.first, 1e-6)

    def note(self) -> None:
        """Keep the figures of this attempt."""
        if self.rows:
            figures = {"rows_per_second": self.rate, "start_seconds": self.first - self.called}
            self.ctx.track.metrics({**figures, "rows_computed": float(self.rows)})


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _join(ctx: Context, parts: Path) -> None:
    """All parts as files of a fixed number of rows."""
    from raypath.components.data.streaming.parquet import TableWriter
    from raypath.components.inference.batch.chunks import finished, joined

    tables = joined(finished(parts))
    first = next(tables)
    with TableWriter(ctx.out, first.schema) as writer:
        writer.write(first)
        for table in tables:
            writer.write(table)
    for path in sorted(ctx.out.glob("*.parquet")):
        path.rename(ctx.out / f"predictions-{path.name}")


def _worker_error(error: Exception) -> BaseException:
    """Return the error that a worker raised; Unavailable, which is retried, when the workers themselves died."""
    from raypath.components.data.streaming.ray_errors import unwrap, worker_died

    found = unwrap(error)
    if worker_died(error) and not isinstance(found, RaypathError):
        return Unavailable("the workers of the prediction died", fix="run the same command again")
    return found
