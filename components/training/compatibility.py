"""Checks of a base model against a dataset and the settings, before training starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Dataset, Model
from raypath.components.core.columns import inputs_of, is_single_text
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import SINGLE_CLASS
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.models.adapters import names_base
from raypath.components.models.base_models import TRAINED_FURTHER, base_folder, tokenizer_digest, weights_digest
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.objectives.preference import OBJECTIVES
from raypath.components.training.params import FITTED, ResolvedParams


def check_base(params: ResolvedParams, train: Dataset, start: Model | None = None) -> Path:
    """Return the folder that training starts from: that of `start`, else of `params.base`.

    Raises DataError if it is not a model, or the rows' tokens or features were made for another one.
    """
    folder = base_folder(params.base if start is None else start.uri)
    name = params.base if start is None else start.base
    if params.method == "head" and not train.features:
        raise DataError("method=head needs rows with features", fix="put the step `extract` before tune and finetune")
    if params.method == "head" and train.features != weights_digest(folder):
        where = name if start is None else f"{name}, trained further"
        what = f"the features of the rows were computed with another encoder than that of {where}"
        raise DataError(what, fix="use the same base for `extract` and finetune, or set finetune.method=full")
    if train.tokenizer and train.tokenizer != tokenizer_digest(folder):
        raise DataError(
            f"the rows were tokenized with another tokenizer than that of {name}",
            fix="leave preprocess.tokenizer unset, or give the base model's",
        )
    if params.task == "preference":
        _check_reference(params, train, folder, name)
    return folder


def _check_reference(params: ResolvedParams, train: Dataset, folder: Path, name: str) -> None:
    """Raise DataError for rows without the scores that a preference objective needs, or with those of another model."""
    objective = params.objective.preference
    if not OBJECTIVES[objective].reference or train.reference == weights_digest(folder):
        return
    if not train.reference:
        what = f"{objective} needs log-probabilities of a reference, which the rows do not have"
        raise DataError(what, fix="put the step `score_reference` before tune and finetune, or use simpo or orpo")
    what = f"the log-probabilities of the rows are of another reference than {name}"
    raise DataError(what, fix="use the same base for `score_reference` and finetune")


def input_facts(train: Dataset, folder: Path) -> dict[str, Any]:
    """Fields of ModelMetadata that describe the inputs. folder: of the base model."""
    if is_single_text(train.columns):
        return {"redaction": train.redaction}
    separator = TextTokenizer(folder, train.max_length).pair_separator() if train.form == "pair" else None
    return {
        "columns": inputs_of(train.columns),
        "form": train.form,
        "separator": separator,
        "redaction": train.redaction,
    }


def metadata_for(params: ResolvedParams, train: Dataset, folder: Path, start: Model | None = None) -> ModelMetadata:
    """Build the metadata of the model to be trained. folder: that training starts from."""
    base = params.base
    if start is not None:  # adapters that are trained further stay those of their base
        base = start.base if names_base(folder) else f"{start.base}{TRAINED_FURTHER}{start.task}"
    return ModelMetadata(
        task=params.task,
        labels=train.labels,
        label_kind=train.label_kind,
        max_length=train.max_length,
        **input_facts(train, folder),
        base=base,
    )


def check_method(task: Task, params: ResolvedParams) -> None:
    """Raise DataError or ParamsError for a task or settings that a fitted head does not support."""
    if params.method not in FITTED:
        return
    method = f"finetune.method={params.method}"
    if task.metadata.label_kind not in SINGLE_CLASS or "class_weights" not in task.objectives:
        what = f"{method} is for one class a row; the task {task.name} has labels of kind {task.metadata.label_kind}"
        raise DataError(what, fix="set finetune.method=full")
    if params.objective.focal or params.objective.label_smoothing:
        raise ParamsError(f"{method} fits a plain logistic regression", fix="leave focal and label_smoothing out")
    if params.workers > 1 or params.max_workers > 1 or params.shard:
        raise ParamsError(f"{method} trains with one worker", fix="leave finetune.workers and shard out")
