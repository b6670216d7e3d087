"""Extract features of every row with the frozen encoder, once for all heads that are trained on them.

Training only the head (`finetune.method=head`) then needs no encoder: `tune` and `finetune` read the features that this
step stored, so that a search over 50 heads takes less than one epoch of the whole model (measured by `python -m
tests.bench.heads`). With any other method the step returns its input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from raypath.components.core.artifacts import Dataset, Settings, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.params import AUTO, Params, Source
from raypath.components.models.base_models import resolved_base
from raypath.components.training.compatibility import check_base, input_facts
from raypath.components.training.differential_privacy.defaults import private_method
from raypath.components.training.params import FinetuneParams, ResolvedParams

if TYPE_CHECKING:
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.training.batches.frozen_features import Features


class ExtractParams(Params):
    """Encoder of the features; all fields follow the settings of `finetune`."""

    base: Source = ""
    """Base model whose encoder is used; that of finetune."""
    method: Literal["auto", "full", "head"] = "full"
    """head extracts features; full returns the rows unchanged; auto does what `configure` chose."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the encoder; that of finetune."""

    @classmethod
    def of(cls, params: FinetuneParams) -> Self:
        """Derive the settings from those of fine-tuning."""
        method = private_method(params) if params.privacy.enabled else params.method
        if method not in ("auto", "head"):
            return cls()
        return cls(base=params.base, method="auto" if method == "auto" else "head", precision=params.precision)


@component(version=1, by_shard=True)
def extract(ctx: Context, splits: Splits, params: ExtractParams, settings: Settings | None = None) -> Splits:
    """Add the column `features` (list of float32 [H], the top layer's state of the first token) to train and valid.

    settings: those that `configure` chose. Rows and their order are unchanged, and so is the test split. Raises
    DataError for a base that cannot be loaded, has another tokenizer than the rows, or has a head that does not read
    the first token.
    """
    base, method = _chosen(params, settings)
    if method != "head":
        return Splits(train=splits.train, valid=splits.valid, test=splits.test)
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.training.batches.frozen_features import INLINE_ROWS, Features

    folder = check_base(ResolvedParams(base=base), splits.train)
    separator = input_facts(splits.train, folder).get("separator")
    features = Features(folder, ctx.workers, params.precision, separator)
    if ctx.part_storage is not None and max(splits.train.rows, splits.valid.rows) >= INLINE_ROWS:
        # Tasks on other nodes do not have the folder.
        features = features.stored_in(ctx.part_storage, ctx.scratch / ".encoder")
    progress = ProgressReporter(ctx, splits.train.rows + splits.valid.rows)
    train = _extract_split(ctx, "train", splits.train, features, progress)
    valid = _extract_split(ctx, "valid", splits.valid, features, progress)
    progress.finish()
    return Splits(train=train, valid=valid, test=splits.test)


def _chosen(params: ExtractParams, settings: Settings | None) -> tuple[str, str]:
    """Return base and method; without `configure`, auto trains the full model."""
    values = settings.values if settings is not None else {}
    method = values.get("method", "full") if params.method == AUTO else params.method
    return resolved_base(str(values.get("base", params.base))), str(method)


def _extract_split(ctx: Context, name: str, data: Dataset, features: Features, progress: ProgressReporter) -> Dataset:
    from raypath.components.data.streaming.parquet import TableWriter, scan, schema_of
    from raypath.components.data.streaming.row_files import dataset_files, uploaded
    from raypath.components.data.streaming.shard_tasks import Output, write_outputs
    from raypath.components.data.streaming.stream import BATCH_ROWS
    from raypath.components.training.batches.frozen_features import FEATURES, INLINE_ROWS

    schema = schema_of(data.uri).append(FEATURES)
    if data.rows >= INLINE_ROWS:
        rows = dataset_files(data.uri)
        if ctx.part_storage is not None and not rows.portable:
            rows = uploaded(ctx.part_storage, rows, ctx.scratch / ".staged")
        output = Output(rows, schema, features.alone())
        write_outputs(ctx, {name: output}, progress.add)
    else:
        with TableWriter(ctx.out / name, schema) as writer:
            for table in scan(data.uri):
                # As in a task, since the rows that are computed together determine the last bits of a feature.
                for start in range(0, table.num_rows, BATCH_ROWS):
                    writer.write(features(table.slice(start, BATCH_ROWS)))
                progress.add(table.num_rows)
    return data.model_copy(update={"uri": name, "digest": "", "features": features.name})
