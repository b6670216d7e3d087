"""Compute what a frozen encoder makes of every row, once, for all heads that are tried on it.

Training a head alone (`finetune.method=head`) then needs no encoder: `tune` and `finetune` read the features that this
step left. A search over 50 heads then takes less than one epoch of the whole model (`python -m tests.bench.heads`; the
README has the figures). With another method it hands its input on.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Literal, Self

from raypath.components.core.artifacts import Dataset, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.params import Params, Source
from raypath.components.training.compatibility import check_base
from raypath.components.training.params import FinetuneParams

if TYPE_CHECKING:
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.training.batches.frozen_features import Features


class ExtractParams(Params):
    """Whose features are computed, and whether they are needed."""

    base: Source = ""
    """The base model whose encoder is used; that of finetune."""
    method: Literal["full", "head"] = "full"
    """head computes features; full leaves the rows as they are."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """How the encoder computes; that of finetune."""

    @classmethod
    def of(cls, params: FinetuneParams) -> Self:
        """What fine-tuning with these settings needs."""
        if params.method == "full":
            return cls()
        return cls(base=params.base, method=params.method, precision=params.precision)


@component(version=1)
def extract(ctx: Context, parts: Splits, params: ExtractParams) -> Splits:
    """Train and valid with the column `features` (list of float32 [H], the top layer's state of the first token).

    Rows and their order stay; the test part is handed on. Raises DataError for a base that does not open or has
    another tokenizer than the rows, or whose head does not read the first token.
    """
    if params.method == "full":
        return Splits(train=parts.train, valid=parts.valid, test=parts.test)
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.training.batches.frozen_features import Features

    folder = check_base(FinetuneParams(base=params.base), parts.train)
    change = Features(folder, ctx.workers, params.precision)
    progress = ProgressReporter(ctx, parts.train.rows + parts.valid.rows)
    train, valid = (
        _extracted(ctx, name, part, change, progress) for name, part in (("train", parts.train), ("valid", parts.valid))
    )
    progress.end()
    return Splits(train=train, valid=valid, test=parts.test)


def _extracted(ctx: Context, name: str, part: Dataset, change: Features, progress: ProgressReporter) -> Dataset:
    from raypath.components.data.encoding import parquet_shards
    from raypath.components.data.streaming.parquet import TableWriter, schema_of
    from raypath.components.data.streaming.stream import stream_tables
    from raypath.components.training.batches.frozen_features import FEATURES, INLINE_ROWS

    inline = part.rows < INLINE_ROWS
    worker = change if inline else change.alone()
    with (
        closing(stream_tables(parquet_shards(part.uri), ctx.workers, worker, inline=inline)) as tables,
        TableWriter(ctx.out / name, schema_of(part.uri).append(FEATURES)) as writer,
    ):
        for table in tables:
            writer.write(table)
            progress.add(table.num_rows)
    return part.model_copy(update={"uri": name, "digest": "", "features": change.name})
