"""Continue the pre-training of a base model on unlabelled text, so that fine-tuning starts from what was learnt there.

An encoder predicts hidden tokens, a decoder the next one (components/tasks/language_model.py). What comes out is a base
model like any other: `finetune(..., start=model)`, or its folder as `finetune.base`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field

from raypath.components.core.artifacts import Dataset, Model, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError, UserError
from raypath.components.core.labels import LabelKind
from raypath.components.core.params import Positive
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.training.compatibility import check_base
from raypath.components.training.params import FinetuneParams, TrainingParams
from raypath.components.training.ray_train import fit


class PretrainParams(TrainingParams):
    """From a base model to one that knows the user's texts."""

    epochs: Positive = 3
    """Passes over the training part; other tokens are hidden in each."""
    mask: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that a masked model has to predict; a causal one predicts all."""
    frozen_layers: Annotated[int, Field(ge=-1)] = -1
    """Lowest encoder layers that stay as in the base model, embeddings with them; -1 trains everything."""
    head_factor: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """A base without a language model's head gets a new one, which learns this many times faster than the encoder."""

    def using(self, base: str) -> Self:
        """These params with the base model `base` where none is named."""
        return self if self.base else self.model_copy(update={"base": base})

    def training(self, new_head: bool) -> FinetuneParams:
        """The settings of the training loop."""
        common = {name: getattr(self, name) for name in TrainingParams.model_fields}
        common["head_factor"] = self.head_factor if new_head else 1.0
        return FinetuneParams(task="language_model", objective=ObjectiveParams(mask=self.mask), **common)


@component(version=1)
def pretrain(ctx: Context, train: Dataset, valid: Dataset, params: PretrainParams, held: Splits | None = None) -> Model:
    """Train on `train`, choose the weights by `params.metric` on `valid`: the lowest perplexity.

    train, valid: preprocessed Datasets, labels are not used; held: texts of its test part are left out of both, those
    of its valid part out of `train`, so that what is measured on them later was not learnt. Returns a transformers
    folder (safetensors, tokenizer, raypath.json). Raises DataError for a base that is no model, or that has no language
    model's head.
    """
    from raypath.components.models.language_models import head_is_new, keep_pooler, load_vocabulary
    from raypath.components.tasks.language_model import LanguageModel

    if params.base is None:
        raise ParamsError("no base model is named", fix="write p.pretrain.using(base), or set -s pretrain.base=")
    with _named():
        folder = check_base(FinetuneParams(base=params.base), train)
        auto = load_vocabulary(folder).auto
        new = head_is_new(folder, auto)
        if new:
            ctx.log.warning("%s has no language model's head; a new one learns from random weights", params.base)
        if held is not None:
            train, valid = _apart(ctx, train, valid, held)
        metadata = ModelMetadata(
            task=LanguageModel.name, labels=(), label_kind=LabelKind.NONE, max_length=train.max_length, base=params.base
        )
        model = fit(ctx, folder, metadata, (train, valid), params.training(new))
    keep_pooler(folder, auto, ctx.out)
    return model


def _apart(ctx: Context, train: Dataset, valid: Dataset, held: Splits) -> tuple[Dataset, Dataset]:
    """The two parts without what is measured on later; says how many texts were left out."""
    from raypath.components.data.splits.overlap import drop_overlap

    kept = drop_overlap(train, (held.valid, held.test), ctx.scratch / "train")
    looked_at = drop_overlap(valid, (held.test,), ctx.scratch / "valid")
    if not kept.rows or not looked_at.rows:
        raise DataError("all texts are also in the labelled valid or test part", fix="give other texts")
    number = train.rows + valid.rows - kept.rows - looked_at.rows
    if number:
        ctx.log.warning("left %s texts out: they are also in the labelled valid or test part", f"{number:,}")
    return kept, looked_at


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """What training says of its settings names them as this step's."""
    try:
        yield
    except UserError as error:
        error.what, error.fix = (part.replace("finetune.", "pretrain.") for part in (error.what, error.fix))
        raise
