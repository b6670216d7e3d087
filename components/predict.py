"""Batch prediction of a dataset: Ray Data distributes chunks of rows to workers that have loaded the model.

A finished chunk is a file in the step's scratch folder, so that an interrupted step resumes with the remaining chunks.
The output has the order of the input and is byte-identical, with or without interruptions.
"""

from __future__ import annotations

from pathlib import Path

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import inputs_of
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import ParamsError
from raypath.components.core.params import NonNegative, Params, Positive, Source
from raypath.components.core.uris import scheme

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
    from raypath.components.inference.batch.chunk_worker import model_folder
    from raypath.components.inference.batch.chunks import on_any_node, plan_chunks, text_rows
    from raypath.components.inference.batch.results import Results
    from raypath.components.inference.batch.running import merge_chunks, run_chunks
    from raypath.components.inference.batch.worker import PredictionJob, Predictor
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
    run_chunks(ctx, job, Predictor, actors)
    ctx.report(rows.rows, rows.rows, "writing")
    merge_chunks(ctx, results.files())
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
