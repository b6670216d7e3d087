"""Predict a dataset offline: Ray Data streams the rows through actors that each hold the model.

The rows come out in the order they went in, in files of fixed size, so that two runs give the same files.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from components.core.artifacts import Dataset
from components.core.component import component
from components.core.context import Context
from components.core.errors import ParamsError, RaypathError, kinds
from components.core.params import Params, Positive, Source

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 8_192
"""Rows written at a time."""
FILE_GROUPS = 16


class PredictParams(Params):
    """Which model, and how much at a time."""

    model: Source = ""
    """A model folder, or models:/NAME/VERSION or models:/NAME@champion of the registry."""
    batch: Positive = 512
    """Rows handed to the model at a time; it sorts them by length."""
    actors: Positive = 1
    """Processes that hold the model; they share this machine's CPU cores."""
    scores: bool = False
    """Add the column `scores`, where the task has one: the probability of every class, in the order of the classes."""
    text: bool = True
    """Copy the texts to the output."""


@component(version=1)
def predict(ctx: Context, data: Dataset, params: PredictParams) -> Dataset:
    """`data` in the same order with the task's columns, such as `predicted` (a class) and `score` (its probability).

    Writes predictions-00000.parquet and so on, 131,072 rows each. A column `label` is kept where there is one.
    Raises ParamsError without a model, DataError for one that does not open or a dataset without texts.
    """
    from components.serving.offline import model_folder
    from components.tasks.bases import read_card

    if not params.model:
        raise ParamsError("setting model got nothing", fix="give a model folder, or models:/NAME@champion")
    card = read_card(model_folder(params.model, ctx.tracking.uri))
    rows = _write(ctx, data.rows, _predicted(ctx, data, params))
    ctx.track.metrics({"rows": float(rows)})
    return Dataset(rows=rows, labels=card.labels, label_kind=card.label_kind, source=data.source)


def _predicted(ctx: Context, data: Dataset, params: PredictParams) -> Iterator[pa.Table]:
    """Predicted rows in order, GROUP_ROWS at a time."""
    import ray.data
    from ray.exceptions import RayError

    from components.data.flow import quiet
    from components.data.source import PieceSource
    from components.serving.offline import Predictor, rows_of

    pieces: list[Any] = rows_of(data)
    facts = {
        "source": params.model,
        "tracking": ctx.tracking.uri,
        "threads": max(1, ctx.workers // params.actors),
        "scores": params.scores,
        "text": params.text,
    }
    with quiet(ctx.workers):
        try:
            rows = ray.data.read_datasource(PieceSource(pieces), override_num_blocks=len(pieces))
            rows = rows.map_batches(
                Predictor,
                fn_constructor_kwargs=facts,
                batch_size=params.batch,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=params.actors),
                # An actor that held a CPU for good could keep the reads from ever getting one.
                num_cpus=0,
                num_gpus=1 if ctx.gpus else 0,
            )
            yield from rows.iter_batches(batch_size=GROUP_ROWS, batch_format="pyarrow", prefetch_batches=1)
        except (RayError, RuntimeError) as error:
            raise _ours(error) from None


def _write(ctx: Context, total: int, tables: Iterable[pa.Table]) -> int:
    """Write groups of rows, a fixed number a file. Returns the number of rows."""
    import pyarrow.parquet as pq

    rows = 0
    with contextlib.ExitStack() as open_file:
        for n, table in enumerate(tables):
            if n % FILE_GROUPS == 0:
                open_file.close()
                path = ctx.out / f"predictions-{n // FILE_GROUPS:05d}.parquet"
                writer = open_file.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)
            rows += table.num_rows
            ctx.report(rows, total, "rows predicted")
    return rows


def _ours(error: Exception) -> Exception:
    """The error of ours that a worker raised, else Ray's own. Ray Data hands on the worker's stack trace as text."""
    lines = re.findall(rf"^{re.escape(RaypathError.__module__)}\.(\w+): (.+)$", str(error), re.MULTILINE)
    name, what = lines[-1] if lines else ("", "")
    kind = kinds().get(name)
    return error if kind is None else kind(what)
