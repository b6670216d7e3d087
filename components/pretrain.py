"""Continue pre-training of a base model on unlabelled text, as a start for fine-tuning.

An encoder predicts hidden tokens, a decoder the next one (components/tasks/language_model.py). The result is a base
model: `finetune(..., start=model)`, or its folder as `finetune.base`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field

from raypath.components.core.artifacts import Dataset, Model, Settings, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError, UserError
from raypath.components.core.labels import LabelKind
from raypath.components.core.params import Fraction, NonNegative, Positive, Tokens
from raypath.components.data.wording import plural, verb
from raypath.components.models.base_models import resolved_base
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.training.compatibility import check_base, input_facts
from raypath.components.training.params import Layers, Rate, ResolvedParams, TrainingParams
from raypath.components.training.ray_train import fit


class PretrainParams(TrainingParams):
    """Settings of `pretrain`."""

    epochs: Positive = 3
    """Passes over the training split; different tokens are masked in each."""
    lr: Rate = 1e-4
    """Peak learning rate of the encoder."""
    warmup: Fraction = 0.1
    """Share of the steps with linear warm-up; afterwards the learning rate decays linearly to 0."""
    batch_tokens: Tokens = 2048
    """Tokens per step over all workers, including padding: more workers take the same steps in less time."""
    mask: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that a masked model has to predict; a causal one predicts all."""
    patience: NonNegative = 2
    """Validation passes without a better metric after which training stops; 0 never stops early."""
    frozen_layers: Layers = -1
    """Lowest encoder layers that stay frozen, together with the embeddings; -1 trains everything."""
    head_factor: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Learning rate factor of a new language model head, for a base that has none."""

    def using(self, base: str) -> Self:
        """Return these params with base model `base`, unless one is set."""
        return self if self.base else self.model_copy(update={"base": resolved_base(base)})

    def training(self, new_head: bool) -> ResolvedParams:
        """Convert to settings of the training loop."""
        common = {name: getattr(self, name) for name in TrainingParams.model_fields}
        common["head_factor"] = self.head_factor if new_head else 1.0
        return ResolvedParams(task="language_model", objective=ObjectiveParams(mask=self.mask), **common)


@component(version=1, by_shard=True)
def pretrain(
    ctx: Context,
    train: Dataset,
    valid: Dataset,
    params: PretrainParams,
    held_out: Splits | None = None,
    settings: Settings | None = None,
) -> Model:
    """Train on `train`; select the best weights by `params.metric` on `valid`, by default the lowest perplexity.

    train, valid: preprocessed Datasets, labels are not used; held_out: labelled splits whose test texts are removed
    from both, and whose valid texts from `train`, so that later evaluation is on unseen texts; settings: the base that
    `configure` chose, where none is set. Returns a transformers folder (safetensors, tokenizer, raypath.json). Raises
    DataError for a base without a supported language model.
    """
    from raypath.components.models.language_models import head_is_new, keep_pooler, load_vocabulary
    from raypath.components.tasks.language_model import LanguageModel

    if settings is not None:
        params = params.using(str(settings.values["base"]))
    if params.base is None:
        raise ParamsError("no base model is set", fix="write p.pretrain.using(base), or set -s pretrain.base=")
    with _named():
        folder = check_base(ResolvedParams(base=params.base), train)
        auto = load_vocabulary(folder).auto
        new = head_is_new(folder, auto)
        if new:
            ctx.log.warning("%s has no language model's head; a new one is trained from random weights", params.base)
        if held_out is not None:
            train, valid = _without_overlap(ctx, train, valid, held_out)
        metadata = ModelMetadata(
            task=LanguageModel.name,
            labels=(),
            label_kind=LabelKind.NONE,
            max_length=train.max_length,
            base=params.base,
            **input_facts(train, folder),
        )
        model = fit(ctx, folder, metadata, (train, valid), params.training(new))
    keep_pooler(folder, auto, ctx.out)
    return model


def _without_overlap(ctx: Context, train: Dataset, valid: Dataset, held_out: Splits) -> tuple[Dataset, Dataset]:
    """Remove texts that are evaluated on later; log how many."""
    from raypath.components.data.splits.overlap import drop_overlap

    kept = drop_overlap(train, (held_out.valid, held_out.test), ctx.scratch / "train")
    kept_valid = drop_overlap(valid, (held_out.test,), ctx.scratch / "valid")
    if not kept.rows or not kept_valid.rows:
        raise DataError("all texts are also in the labelled valid or test split", fix="give other texts")
    number = train.rows + valid.rows - kept.rows - kept_valid.rows
    if number:
        are = verb(number, "is", "are")
        ctx.log.warning("removed %s that %s also in the labelled valid or test split", plural(number, "text"), are)
    return kept, kept_valid


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Rename `finetune.` settings in errors to those of this step."""
    try:
        yield
    except UserError as error:
        error.what, error.fix = (part.replace("finetune.", "pretrain.") for part in (error.what, error.fix))
        raise
