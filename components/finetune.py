"""Fine-tune a base model on tokenised rows, with Ray Train; go on from the last checkpoint after a kill.

One worker trains in the step's own process, which starts at once; several train as a Ray Train worker group with
DistributedDataParallel. The loop, the checkpoints and the result are the same.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from components.core.artifacts import Dataset, Model, Settings
from components.core.component import component
from components.core.context import Context
from components.core.errors import DataError, ParamsError, Unavailable
from components.core.params import Params
from components.tasks.bases import Card, base_folder, tokenizer_digest, write_card
from components.training.params import FinetuneParams

__all__ = ["FinetuneParams", "finetune"]


@component(version=1)
def finetune(ctx: Context, train: Dataset, valid: Dataset, best: Settings, params: FinetuneParams) -> Model:
    """Train on `train`, choose the weights by `params.metric` on `valid`.

    train, valid: preprocessed Datasets; best: replaces the params of the same names. Returns a transformers folder
    (safetensors, tokenizer, raypath.json). Raises DataError for a base that is no model, or a loss that is no number.
    """
    chosen = settle(params, best)
    for part, name in ((train, "train"), (valid, "valid")):
        if not part.rows:
            raise DataError(f"the {name} part has no rows; wanted at least one", fix=f"raise split.{name}, or give it")
    folder = check_base(chosen, train)
    for part, name in ((train, "train"), (valid, "valid")):
        ctx.track.dataset(part.source, part.digest, part.source, name, part.rows)
    ctx.track.params({f"used.{name}": value for name, value in best.values.items()})
    task = {
        "context": ctx.apart(),
        "folder": str(folder),
        "train": train.model_dump(mode="json"),
        "valid": valid.uri,
        "params": chosen.model_dump(mode="json"),
    }
    metrics = _fit_here(ctx, task) if chosen.workers == 1 else _fit_apart(task, chosen)
    return _model(ctx, chosen, train, metrics)


def settle(params: FinetuneParams, best: Settings) -> FinetuneParams:
    """The params with what `tune` found put in."""
    return params.override(best.values) if best.values else params


def check_base(params: FinetuneParams, train: Dataset) -> Path:
    """The base model's folder. Raises DataError when it is no model or its tokenizer is not the rows' own."""
    folder = base_folder(params.base)
    if train.tokenizer and train.tokenizer != tokenizer_digest(folder):
        raise DataError(
            f"the rows were tokenised by another tokenizer than that of {params.base}",
            fix="leave preprocess.tokenizer unset, or give the base model's",
        )
    return folder


def train_worker(task: dict[str, Any]) -> None:
    """What each Ray Train worker runs: build the job, train, and on rank 0 save the model and report."""
    import ray.train

    from components.training.tracking import attach

    ctx: Context = task["context"]
    context = ray.train.get_context()
    first = context.get_world_rank() == 0
    metrics: dict[str, float]
    if first and context.get_world_size() > 1:
        with attach(ctx.tracking, ctx.step) as run:
            metrics = _train(dataclasses.replace(ctx, track=run), task, context.get_world_size())
    else:
        metrics = _train(task.get("here", ctx), task, context.get_world_size())
    ray.train.report(metrics)


def _fit_here(ctx: Context, task: dict[str, Any]) -> dict[str, float]:
    """Train in this process: Ray Train's local mode has no worker to start."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    task = {**task, "here": ctx}
    trainer = TorchTrainer(train_worker, train_loop_config=task, scaling_config=ScalingConfig(num_workers=0))
    trainer.fit()
    return _metrics(ctx)


def _fit_apart(task: dict[str, Any], params: FinetuneParams) -> dict[str, float]:
    """Train in a group of Ray Train workers; a worker that dies restarts the group from the last checkpoint."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    ctx: Context = task["context"]
    gpu = ctx.gpus > 0
    _check_workers(params.workers, "GPU" if gpu else "CPU")
    scaling = ScalingConfig(
        num_workers=params.workers, use_gpu=gpu, resources_per_worker={"GPU": 1} if gpu else {"CPU": 0.5}
    )
    # Ray Train resumes a run of the same name; ours resumes by its own checkpoints, so every attempt has a new name.
    config = RunConfig(
        name=f"attempt-{time.time_ns()}", storage_path=str(ctx.scratch / "train"), failure_config=FailureConfig(3)
    )
    trainer = TorchTrainer(train_worker, train_loop_config=task, scaling_config=scaling, run_config=config)
    try:
        trainer.fit()
    except TrainingFailedError as error:
        cause = _cause(error)
        if cause is not None:
            raise cause from None
        raise Unavailable(f"training workers failed: {str(error).splitlines()[0]}", fix="see the Ray logs") from None
    return _metrics(ctx)


def _check_workers(workers: int, kind: str) -> None:
    """Refuse more workers than the cluster has cores or GPUs, which Ray Train would wait for without end."""
    import ray

    have = int(ray.cluster_resources().get(kind, 0))
    if workers > have:
        raise ParamsError(f"finetune.workers={workers}, but Ray has {have} {kind}s", fix=f"set at most {have}")


def _train(ctx: Context, task: dict[str, Any], workers: int) -> dict[str, float]:
    import torch.distributed as dist

    from components.tasks import load_task
    from components.training.loop import Job, Training
    from components.training.rows import load_rows

    params = FinetuneParams.model_validate_json(json.dumps(task["params"]))
    data = Dataset.model_validate_json(json.dumps(task["train"]))
    training = Training(
        Job(
            task=load_task(params.task),
            labels=data.labels,
            folder=Path(task["folder"]),
            train=load_rows(data.uri),
            valid=load_rows(task["valid"]),
            params=params,
            seed=ctx.seed,
            threads=params.threads or max(1, ctx.workers // workers),
            scratch=ctx.scratch,
            on_step=lambda step, steps, figures: _on_step(ctx, step, steps, figures),
            on_evaluation=lambda step, metrics: _on_evaluation(ctx, step, metrics),
        )
    )
    metrics = training.run()
    if not dist.is_initialized() or dist.get_rank() == 0:
        training.model.save_pretrained(ctx.out, safe_serialization=True)
        (ctx.scratch / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return metrics


def _on_step(ctx: Context, step: int, steps: int, figures: dict[str, float]) -> None:
    ctx.report(step, steps, f"loss {figures['loss']:.3f}, {figures['rows_per_second']:.0f} rows/s")
    if step % max(1, steps // 500) == 0:
        ctx.track.metrics({f"train/{name}": value for name, value in figures.items()}, step)


def _on_evaluation(ctx: Context, step: int, metrics: dict[str, float]) -> None:
    ctx.track.metrics({f"valid/{name}": value for name, value in metrics.items() if "/" not in name}, step)


def _metrics(ctx: Context) -> dict[str, float]:
    found: dict[str, float] = json.loads((ctx.scratch / "metrics.json").read_text(encoding="utf-8"))
    return found


def _model(ctx: Context, params: Params, train: Dataset, metrics: dict[str, float]) -> Model:
    """Complete the folder with tokenizer and card."""
    from transformers import AutoTokenizer

    assert isinstance(params, FinetuneParams)
    AutoTokenizer.from_pretrained(base_folder(params.base)).save_pretrained(ctx.out)
    card = Card(
        task=params.task,
        labels=train.labels,
        label_kind=train.label_kind,
        max_length=train.max_length,
        base=params.base,
    )
    write_card(ctx.out, card)
    kept = {name: value for name, value in metrics.items() if "/" not in name}
    return Model(
        task=card.task,
        base=card.base,
        labels=card.labels,
        label_kind=card.label_kind,
        max_length=card.max_length,
        metrics=kept,
    )


def _cause(error: BaseException) -> Exception | None:
    """The error of our own tree that made the workers fail, if one did."""
    from components.core.errors import RaypathError

    failures = getattr(error, "worker_failures", {}) or {}
    for failure in failures.values():
        inner = getattr(failure, "cause", failure)
        if isinstance(inner, RaypathError):
            return inner
    return None
