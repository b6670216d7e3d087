"""Score the answers of preferences with the reference model, once for all trainings on them.

The reference of DPO, IPO and KTO is the model that training starts from. Its log-probabilities do not change, so that
`tune` and `finetune` read the columns that this step stored and run one model instead of two. With any other task, or
an objective without a reference (simpo, orpo), the step returns its input.
"""

from __future__ import annotations

import contextlib
from typing import Literal, Self

from raypath.components.core.artifacts import Model, Settings, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.labels import LabelKind
from raypath.components.core.params import Params, Source
from raypath.components.models.base_models import resolved_base
from raypath.components.tasks.objectives.preference import OBJECTIVES
from raypath.components.training.compatibility import check_base
from raypath.components.training.params import FinetuneParams, ResolvedParams


class ScoreReferenceParams(Params):
    """Reference model; all fields follow the settings of `finetune`."""

    base: Source = ""
    """Base model that training starts from, which is the reference; that of finetune."""
    objective: str = ""
    """Preference objective; "" for another task, and for an objective without a reference."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the reference; that of finetune."""

    @classmethod
    def of(cls, params: FinetuneParams) -> Self:
        """Derive the settings from those of fine-tuning."""
        name = params.objective.preference
        if params.task != "preference" or not OBJECTIVES[name].reference:
            return cls()
        return cls(base=params.base, objective=name, precision=params.precision)


@component(version=1, by_shard=True)
def score_reference(
    ctx: Context,
    splits: Splits,
    params: ScoreReferenceParams,
    settings: Settings | None = None,
    start: Model | None = None,
) -> Splits:
    """Add the columns `reference_chosen` and `reference_rejected` (float32) to train and valid, of pairs to test too.

    They are the log-probabilities of the answers by the model that training starts from (`start`, else `params.base`),
    summed over the tokens in the loss. For kto rows have one answer each; `rejected_ids` and `rejected_mask` are added,
    the answer of the next row to the prompt of this one, which kto needs for its reference point. settings: those that
    `configure` chose. Rows and their order are unchanged. Many rows are scored by Ray tasks, on all nodes.

    Raises DataError for a base that cannot be loaded, or has another tokenizer than the rows.
    """
    if not params.objective:
        return Splits(train=splits.train, valid=splits.valid, test=splits.test)
    from raypath.components.data.streaming.parquet import TableWriter, schema_of
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.row_files import dataset_files
    from raypath.components.training.batches.reference_scores import ReferenceScores, add_scores
    from raypath.components.training.batches.reference_tasks import score_rows

    values = settings.values if settings is not None else {}
    base = resolved_base(str(values.get("base", params.base)))
    folder = check_base(ResolvedParams(base=base), splits.train, start)
    scores = ReferenceScores(folder, ctx.workers, params.precision, splits.train.max_length)
    data = {"train": splits.train, "valid": splits.valid}
    if splits.train.label_kind is LabelKind.NONE:
        data["test"] = splits.test
    progress = ProgressReporter(ctx, sum(split.rows for split in data.values()))
    sources = {name: dataset_files(split.uri) for name, split in data.items()}
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(TableWriter(ctx.out / name, scores.schema(schema_of(split.uri))))
            for name, split in data.items()
        }
        for name, rows, found in score_rows(ctx, sources, scores, progress.add):
            writers[name].write(add_scores(rows, found))
    progress.finish()
    scores.release()
    facts = {"digest": "", "reference": scores.name}
    made = {name: split.model_copy(update={"uri": name, **facts}) for name, split in data.items()}
    return Splits(train=made["train"], valid=made["valid"], test=made.get("test", splits.test))
