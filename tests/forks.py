"""Processes of their own that begin with torch, sklearn and the model imported: they start in milliseconds."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

MODULES = (
    *(
        "raypath.components.serving.metering.usage",
        "raypath.components.tasks.language_model",
        "raypath.components.tasks.text_classification",
    ),
    *(
        "raypath.components.training.ray_train",
        "raypath.components.training.loop.trainer",
        "pyarrow.parquet",
        "pytest",
        "sklearn.metrics",
    ),
    *("torch.distributed.fsdp", "torch.distributed.tensor", "transformers.models.bert.modeling_bert"),
)
"""What takes the seconds. A session has one server of forks: who starts it has to know what all others need."""


def forks() -> ForkServerContext:
    """A context whose processes can be killed as any other, and hold nothing of the one that tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(MODULES))
    return context
