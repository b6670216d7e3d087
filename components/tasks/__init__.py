"""Tasks: what a model is for. One file a task, loaded on use.

A task knows its columns, how to encode a text, which head to build, its loss, how to read the head's output, its
metrics and the types of a request and a response. Steps know none of this.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from components.core.errors import ParamsError

TASKS = {"text_classification": "components.tasks.text_classification:TextClassification"}

LOWER_IS_BETTER = frozenset({"log_loss", "ece"})


def merit(metric: str, metrics: Mapping[str, float]) -> float:
    """A figure turned so that higher is better. Raises ParamsError with the names there are for an unknown one."""
    if metric not in metrics:
        known = ", ".join(name for name in metrics if "/" not in name)
        raise ParamsError(f"there is no metric {metric}", fix=f"use one of {known}")
    return -metrics[metric] if metric in LOWER_IS_BETTER else metrics[metric]


class Task(Protocol):
    """What the steps ask of a task. Shapes: B rows, K outputs."""

    name: str

    def build(self, folder: str, labels: tuple[str, ...], dropout: float | None) -> Any:
        """A transformers model with this task's head on the base model in `folder`. Raises DataError."""
        ...

    def loss(self, logits: Any, targets: Any) -> Any:
        """Mean loss, a scalar tensor. logits float [B, K], targets int64 [B]."""
        ...

    def decode(self, logits: Any) -> Any:
        """logits float32 [B, K] as a numpy array -> what `metrics` takes: probabilities float64 [B, K]."""
        ...

    def metrics(self, targets: Any, decoded: Any, labels: tuple[str, ...]) -> dict[str, float]:
        """Named figures; keys may hold a class as `f1/<label>`."""
        ...


def load_task(name: str) -> Task:
    """The task of that name. Raises ParamsError for an unknown one."""
    if name not in TASKS:
        raise ParamsError(f"unknown task {name}", fix=f"use one of {', '.join(TASKS)}")
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(importlib.import_module(module), attribute)()
    return task
