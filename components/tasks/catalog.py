"""Catalog of tasks: map a name, or `package.module:Class`, and a label kind to a class.

The metadata of a model names its task. `check_task` decides if that name may be imported, which runs code: metadata may
come from a stranger.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import LabelKind
from raypath.components.data.columns.catalog import check_kinds
from raypath.components.data.named_classes import import_class, is_imported
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.objectives.params import ObjectiveParams

LISTED = "RAYPATH_TASKS"
"""Environment variable: tasks of one's own, separated by commas, that models may name in this process."""

TASKS = {
    "text_classification": "raypath.components.tasks.text_classification:TextClassification",
    "multi_label": "raypath.components.tasks.multi_label:MultiLabel",
    "regression": "raypath.components.tasks.regression:Regression",
    "language_model": "raypath.components.tasks.language_model:LanguageModel",
    "text_generation": "raypath.components.tasks.text_generation:TextGeneration",
    "text_to_text": "raypath.components.tasks.text_to_text:TextToText",
    "preference": "raypath.components.tasks.preference:Preference",
}

VARIANTS = {(TASKS["text_classification"], LabelKind.SET): TASKS["multi_label"]}
"""Class that replaces a task's class for a label kind."""


def task_type(name: str, label_kind: LabelKind = LabelKind.STRING) -> type[Task]:
    """Return the class of a task for a label kind: a name in TASKS, or `package.module:Class`. Raises ParamsError."""
    path = TASKS.get(name, name)
    path = VARIANTS.get((path, label_kind), path)
    if ":" not in path:
        raise ParamsError(f"unknown task {name}", fix=f"use one of {', '.join(TASKS)}, or package.module:Class")
    return import_class(path, Task, f"task {name}")


def check_task(metadata: ModelMetadata, listed: Collection[str] = ()) -> None:
    """Raise DataError for a model whose task, or kind of a column, is neither built in nor listed; imports nothing.

    Listed are `listed` and those in $RAYPATH_TASKS. A task class that this process has imported may be named too: its
    code runs here anyway.
    """
    name = metadata.task
    listed = {*listed, *listed_tasks()}
    check_kinds(metadata.columns, listed)
    known = {*TASKS, *TASKS.values(), *listed}
    if name not in known and not is_imported(name, Task):
        where = f"serve.tasks, predict.tasks or ${LISTED}"
        what = f"the model names the task {name[:100]!r}, which is neither built in nor listed in {where}"
        raise DataError(what, fix="list it there if its code is yours")


def check_served(metadata: ModelMetadata) -> None:
    """Raise DataError for a model whose task has no endpoint."""
    if not task_type(metadata.task, metadata.label_kind).served:
        what = f"a model of the task {metadata.task} has no endpoint"
        raise DataError(what, fix="use `raypath predict`, raypath.load(...).generate, or export it to another server")


def listed_tasks() -> tuple[str, ...]:
    """Return the tasks in $RAYPATH_TASKS."""
    return tuple(filter(None, (name.strip() for name in os.environ.get(LISTED, "").split(","))))


def load_task(metadata: ModelMetadata, objective: ObjectiveParams | None = None) -> Task:
    """Create the task of a model. Raises ParamsError, and DataError for labels of a kind that it does not accept."""
    return task_type(metadata.task, metadata.label_kind)(metadata, objective)
