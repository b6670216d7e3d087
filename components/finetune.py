"""Fine-tune a base model on tokenised rows; go on from the last checkpoint after a kill."""

from __future__ import annotations

from pathlib import Path

from raypath.components.core.artifacts import Dataset, Model, Settings
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.models.base_models import Card, base_folder, tokenizer_digest, weights_digest
from raypath.components.training import trial_weights as reuse
from raypath.components.training.params import FinetuneParams
from raypath.components.training.ray_train import fit

__all__ = ["FinetuneParams", "finetune"]


@component(version=1)
def finetune(
    ctx: Context,
    train: Dataset,
    valid: Dataset,
    best: Settings | None,
    params: FinetuneParams,
    start: Model | None = None,
) -> Model:
    """Train on `train`, choose the weights by `params.metric` on `valid`.

    train, valid: preprocessed Datasets; best: replaces the params of the same names, and its weights are used where
    they come of this very training; start: a model, such as `pretrain` makes, to begin from instead of `params.base`.
    Returns a transformers folder (safetensors, tokenizer, raypath.json). Raises DataError for a base that is no model,
    or a loss that is no number.
    """
    chosen = settle(params, best)
    folder = check_base(chosen, train, start)
    if best is not None:
        ctx.track.params({f"used.{name}": value for name, value in best.values.items()})
    card, parts = card_of(chosen, train, start), (train, valid)
    return fit(ctx, folder, card, parts, chosen, reuse.ready(ctx, best, chosen, card, folder, parts))


def settle(params: FinetuneParams, best: Settings | None) -> FinetuneParams:
    """The params with what `tune` found put in."""
    return params.override(best.values) if best is not None and best.values else params


def check_base(params: FinetuneParams, train: Dataset, start: Model | None = None) -> Path:
    """The folder that training begins from: that of `start`, else of `params.base`.

    Raises DataError when it is no model, or the rows' tokens or features are not its own.
    """
    folder = base_folder(params.base if start is None else start.uri)
    name = params.base if start is None else start.base
    if params.method == "head" and not train.features:
        raise DataError("method=head wants rows with features", fix="put the step `extract` before tune and finetune")
    if params.method == "head" and train.features != weights_digest(folder):
        where = name if start is None else f"{name}, trained further"
        what = f"the features of the rows are of another encoder than that of {where}"
        raise DataError(what, fix="let `extract` and finetune have the same base, or set finetune.method=full")
    if train.tokenizer and train.tokenizer != tokenizer_digest(folder):
        raise DataError(
            f"the rows were tokenised by another tokenizer than that of {name}",
            fix="leave preprocess.tokenizer unset, or give the base model's",
        )
    return folder


def card_of(params: FinetuneParams, train: Dataset, start: Model | None = None) -> Card:
    """What the rows and the settings say of the model to be."""
    return Card(
        task=params.task,
        labels=train.labels,
        label_kind=train.label_kind,
        max_length=train.max_length,
        base=params.base if start is None else f"{start.base}, then {start.task}",
    )
