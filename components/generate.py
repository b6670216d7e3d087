"""Batch generation: a language model responds to the rows of a dataset, chunk by chunk.

A finished chunk is a file in the step's scratch folder, so that an interrupted step resumes with the remaining chunks.
With greedy decoding, or a seed, the output is the same with or without interruptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from raypath.components.core.artifacts import Dataset
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.params import Fraction, NonNegative, Params, Positive, Source
from raypath.components.core.uris import scheme
from raypath.components.data.wording import plural, verb

if TYPE_CHECKING:
    from raypath.components.inference.batch.chunks import Chunk

CHUNKS_LEFT = 4
"""Minimum number of chunks that the remaining rows are divided into. An engine answers the rows of a chunk together,
and is slower with few."""
SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
"""Settings that are passed to the engine."""
COLUMNS = ("row", "record", "request")
"""Columns of `read_prompts`."""


class GenerateParams(Params):
    """Model, chunk size, workers and sampling settings."""

    model: Source = ""
    """Model folder, or models:/NAME/VERSION or models:/NAME@champion in the registry."""
    batch: Positive = 256
    """Rows in a chunk, which is written as a file; an interruption loses the current chunks. Few rows have smaller
    chunks."""
    actors: NonNegative = 0
    """Number of workers; 0: one per GPU, or without one the step's own process with all its cores."""
    max_new_tokens: Positive = 256
    """Maximum length of a response in tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Temperature of sampling; 0 is greedy decoding."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the fewest tokens whose probabilities reach this sum."""
    top_k: NonNegative = 0
    """Draw from this many most probable tokens; 0 from all."""
    min_p: Fraction = 0.0
    """Draw from tokens with at least this share of the probability of the most probable one."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Repetition penalty: above 1 it makes repeated tokens less probable; 1 disables it."""
    seed: NonNegative = 0
    """Seed of the random numbers."""


@component(version=1, by_shard=True)
def generate(ctx: Context, prompts: Dataset, params: GenerateParams) -> Dataset:
    """Respond to the rows of `read_prompts`, in order.

    Writes responses-00000.parquet and so on, 65,536 rows each, with `row`, `record` (the row as JSON), `answer`,
    `finish_reason` (stop or length), `prompt_tokens`, `answer_tokens` and `error`. A row that the model cannot take,
    such as one that is too long, has an error in place of an answer, and a warning counts them. Raises ParamsError
    without a model, DataError for a model that does not open or cannot generate, or if no row has an answer, StoreError
    if the disk is full.
    """
    from raypath.components.data.streaming.row_files import dataset_files
    from raypath.components.inference.batch.chunk_worker import model_folder
    from raypath.components.inference.batch.chunks import TextRows, on_any_node
    from raypath.components.inference.batch.responses import GenerationJob, Responder
    from raypath.components.inference.batch.results import Results
    from raypath.components.inference.batch.running import merge_chunks, run_chunks

    if not params.model:
        raise ParamsError("setting model got nothing", fix="set a model folder, or models:/NAME@champion")
    model_folder(params.model, ctx.tracking.uri, ctx.signing)  # fetched before workers start
    rows = TextRows(dataset_files(prompts.uri, COLUMNS))
    actors = params.actors or ctx.gpus
    anywhere = actors > 0 and ctx.part_storage is not None and scheme(params.model) == "models:/"
    results = Results(ctx.scratch / "chunks", ctx.part_storage if anywhere else None)
    job = GenerationJob(
        source=params.model,
        tracking=ctx.tracking.uri,
        signing=ctx.signing,
        workers=actors,
        threads=max(1, ctx.workers // max(actors, 1)),
        rows=on_any_node(rows, ctx.part_storage, ctx.scratch / ".staged") if anywhere else rows,
        chunks=tuple(plan_generation(rows.rows, params.batch)),
        results=results,
        attempts=ctx.scratch / ".attempts" / ctx.out.name,
        settings={name: getattr(params, name) for name in SAMPLING},
    )
    run_chunks(ctx, job, Responder, actors)
    ctx.report(rows.rows, rows.rows, "writing")
    merge_chunks(ctx, results.files(), "responses-")
    _report_errors(ctx, rows.rows)
    return Dataset(rows=rows.rows, source=prompts.source)


def plan_generation(rows: int, most: int) -> list[Chunk]:
    """Divide the rows into chunks of `most`; see `plan_chunks`."""
    from raypath.components.inference.batch.chunks import plan_chunks

    return plan_chunks(rows, most, CHUNKS_LEFT)


def _report_errors(ctx: Context, rows: int) -> None:
    """Log the number of tokens, and of rows without an answer. Raises DataError if no row has one."""
    import pyarrow.compute as pc

    from raypath.components.data.streaming.parquet import scan

    failed, tokens, first = 0, 0, ""
    for table in scan(ctx.out, ["row", "answer_tokens", "error"]):
        wrong = table.filter(pc.not_equal(table["error"], ""))
        if len(wrong) and not first:
            first = f"row {wrong['row'][0]}: {wrong['error'][0]}"
        failed += len(wrong)
        tokens += pc.sum(table["answer_tokens"]).as_py() or 0
    if failed == rows:
        raise DataError(f"no row has a response; {first}", fix="correct the prompts")
    if failed:
        ctx.log.warning("%s %s no response; %s", plural(failed, "row"), verb(failed, "has", "have"), first)
    ctx.track.metrics({"rows": float(rows), "errors": float(failed), "answer_tokens": float(tokens)})
