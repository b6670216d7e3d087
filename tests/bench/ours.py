"""What the bench takes from Raypath beside the component itself: settings, steps, models and metrics."""

from __future__ import annotations

from typing import Any

from raypath.components.configuration.samples import SHORT
from raypath.components.models.base_models import base_folder
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.sampler import plan_epoch
from raypath.components.training.batches.token_dataset import TokenDataset, load_token_dataset
from raypath.components.training.compatibility import metadata_for
from raypath.components.training.loop.model_setup import PreparedModel
from raypath.components.training.loop.validate import evaluate
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime.process_group import ProcessGroup
from tests.bench.reviews import Spec


def params_of(spec: Spec, shipped: bool) -> ResolvedParams:
    """The settings of the sample's short training, or plain ones with every weight trained."""
    own = ResolvedParams().override(SHORT["sample://reviews"] if shipped else {"frozen_layers": -1})
    tokens = {"batch_tokens": spec.tokens} if spec.tokens else {}
    return own.override({"base": spec.base, "epochs": spec.epochs, "lr": spec.lr, **tokens})


def rows_of(spec: Spec, part: str) -> TokenDataset:
    """The tokenised rows of train, valid or test."""
    data = getattr(spec, part)
    rows = load_token_dataset(data.uri, len(data.labels))
    assert isinstance(rows, TokenDataset)
    return rows


def steps_of(spec: Spec, params: ResolvedParams) -> list[Any]:
    """The row numbers of every step, int64 [B] each, as `finetune` takes them."""
    lengths = rows_of(spec, "train").lengths
    plans = [plan_epoch(lengths, params.batch_tokens, spec.seed, epoch) for epoch in range(params.epochs)]
    return [rows for plan in plans for rows in plan]


def task_of(spec: Spec, params: ResolvedParams) -> Task:
    """The task, as `finetune` sets it up."""
    metadata = metadata_for(params, spec.train, base_folder(params.base))
    return load_task(metadata, params.objective).fit(rows_of(spec, "train").targets)


def model_of(spec: Spec, params: ResolvedParams) -> Any:
    """The model as `finetune` trains it."""
    folder = base_folder(params.base)
    return PreparedModel(task_of(spec, params), folder, params, rows_of(spec, "train"), ProcessGroup(), None, 1).model


def plain_model_of(spec: Spec, params: ResolvedParams) -> Any:
    """The model as transformers makes it, all weights trained: the top layer computes every token."""
    return task_of(spec, params).build(str(base_folder(params.base)), params.dropout)


def judge(spec: Spec, model: Any) -> dict[str, float]:
    """Metrics of a finished model on the test part, in fp32."""
    task, rows = task_of(spec, params_of(spec, shipped=False)), rows_of(spec, "test")
    recorded = evaluate(task, model, rows, ProcessGroup(), 2048, int(model.config.pad_token_id or 0), False)
    return task.metrics(rows.targets, task.decode(recorded))
