"""Catalog of tasks: map a name, or `package.module:Class`, and a label kind to a class."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from raypath.components.core.errors import ParamsError
from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.objectives.params import ObjectiveParams

if TYPE_CHECKING:
    pass

TASKS = {
    "text_classification": "raypath.components.tasks.text_classification:TextClassification",
    "multi_label": "raypath.components.tasks.multi_label:MultiLabel",
    "regression": "raypath.components.tasks.regression:Regression",
    "language_model": "raypath.components.tasks.language_model:LanguageModel",
}

VARIANTS = {(TASKS["text_classification"], LabelKind.SET): TASKS["multi_label"]}
"""Class that replaces a task's class for a label kind."""


def task_type(name: str, label_kind: LabelKind = LabelKind.STRING) -> type[Task]:
    """Return the class of a task for a label kind: a name in TASKS, or `package.module:Class`. Raises ParamsError."""
    path = TASKS.get(name, name)
    path = VARIANTS.get((path, label_kind), path)
    module, colon, attribute = path.partition(":")
    if not colon:
        raise ParamsError(f"unknown task {name}", fix=f"use one of {', '.join(TASKS)}, or package.module:Class")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ParamsError(f"task {name} cannot be imported ({error})", fix="check the spelling") from None
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ParamsError(f"{name} is not a Task", fix="subclass raypath.components.tasks.base.Task")
    return found


def load_task(metadata: ModelMetadata, objective: ObjectiveParams | None = None) -> Task:
    """Create the task of a model. Raises ParamsError, and DataError for labels of a kind that it does not accept."""
    return task_type(metadata.task, metadata.label_kind)(metadata, objective)
