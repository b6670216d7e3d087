"""Train with Ray Train: what `finetune` and `pretrain` share. A step that was killed goes on from its last checkpoint.

One worker trains in the step's own process, which starts at once; several train as a Ray Train worker group. The
loop, the checkpoints and the result are the same.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.artifacts import Dataset, Model
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError, Unavailable
from raypath.components.core.files import write_atomically
from raypath.components.models.base_models import TOKENIZER_COPY
from raypath.components.models.metadata import ModelMetadata, read_metadata, write_metadata
from raypath.components.training import trial_weights as reuse
from raypath.components.training.params import FinetuneParams

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from raypath.components.training.job import Metrics

METRICS = "metrics.json"
RESTARTS = 3
"""New groups of workers for those of which one died."""


def fit(
    ctx: Context,
    folder: Path,
    metadata: ModelMetadata,
    parts: tuple[Dataset, Dataset],
    params: FinetuneParams,
    ready: Path | None = None,
) -> Model:
    """Train the model in `folder` on `parts` (train, valid) and leave it, with tokenizer and metadata, in `ctx.out`.

    ready: weights that `tune` kept of the very same training, taken instead of training. Raises DataError for a part
    without rows, a base that does not open, or a loss that is no number.
    """
    for part, name in zip(parts, ("train", "valid"), strict=True):
        if not part.rows:
            raise DataError(f"the {name} part has no rows; wanted at least one", fix=f"raise split.{name}, or give it")
    for part, name in zip(parts, ("train", "valid"), strict=True):
        ctx.track.dataset(part.source, part.digest, part.source, name, part.rows)
    task = {
        "context": ctx.without_tracker(),
        "folder": str(folder),
        "train": parts[0].uri,
        "valid": parts[1].uri,
        "metadata": metadata.model_dump(mode="json"),
        "labels": len(parts[0].labels),
        "params": params.model_dump(mode="json"),
        "ready": ready,
    }
    metrics = _train(ctx, task, 1) if most_workers(params) == 1 else _fit_apart(task, params)
    return _model(ctx, folder, metrics)


def train_worker(task: dict[str, Any]) -> None:
    """What each Ray Train worker runs: build the job, train, and on rank 0 save the model and report."""
    import ray.train

    from raypath.components.tracking.run import attach

    ctx: Context = task["context"]
    context = ray.train.get_context()
    metrics: Metrics
    if context.get_world_rank() == 0:
        with attach(ctx.tracking, ctx.step) as run:
            metrics = _train(dataclasses.replace(ctx, track=run), task, context.get_world_size())
        # Ray Train hands metrics back only with a checkpoint.
        write_atomically(ctx.scratch / METRICS, json.dumps(metrics))
    else:
        metrics = _train(ctx, task, context.get_world_size())
    ray.train.report(metrics)


def most_workers(params: FinetuneParams) -> int:
    """Workers of a group at its largest."""
    return max(params.workers, params.max_workers)


def _fit_apart(task: dict[str, Any], params: FinetuneParams) -> Metrics:
    """Train in a group of Ray Train workers; where one dies, a new group goes on from the last checkpoint.

    An error of ours is raised at once: it would be the same in a new group.
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    ctx: Context = task["context"]
    _check_workers(params.workers, "GPU" if ctx.gpus else "CPU", ctx.node)
    for left in reversed(range(1 + RESTARTS)):
        try:
            _trainer(task, params).fit()
            break
        except TrainingFailedError as error:
            cause, said = _cause(error), str(error).splitlines()[0]
            if cause is not None:
                raise cause from None
            if not left:
                raise Unavailable(f"training workers failed: {said}", fix="see the Ray logs") from None
            ctx.log.warning("training workers failed, a new group goes on: %s", said)
    return dict(json.loads((ctx.scratch / METRICS).read_text(encoding="utf-8")))


def _trainer(task: dict[str, Any], params: FinetuneParams) -> TorchTrainer:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from raypath.components.training.runtime.network_interface import InterfaceTorchConfig

    ctx: Context = task["context"]
    gpu = ctx.gpus > 0
    scaling = ScalingConfig(
        num_workers=_workers(params),
        use_gpu=gpu,
        resources_per_worker={"GPU": 1} if gpu else {"CPU": 0.5},
        # GPUs of a node exchange faster than nodes do; workers on CPU share the cores of theirs.
        placement_strategy="PACK" if gpu else "SPREAD",
        label_selector=ctx.selector or None,
    )
    # Ray Train resumes a run of the same name; ours resumes by its own checkpoints, so every attempt has a new name.
    # It would also restart a group for an error of ours, which is why groups are counted here.
    config = RunConfig(name=f"attempt-{time.time_ns()}", storage_path=str(ctx.scratch / "train"))
    return TorchTrainer(
        train_worker,
        train_loop_config=task,
        torch_config=InterfaceTorchConfig(),
        scaling_config=scaling,
        run_config=config,
    )


def _workers(params: FinetuneParams) -> int | tuple[int, int]:
    """A fixed number, or for elastic training the least and the most."""
    most = most_workers(params)
    return (params.workers, most) if most > params.workers else params.workers


def _check_workers(workers: int, kind: str, node: str) -> None:
    """Refuse more workers than there are cores or GPUs, which Ray Train would wait for without end."""
    import ray

    nodes = [each["Resources"] for each in ray.nodes() if each["Alive"] and node in ("", each["NodeID"])]
    have = int(sum(resources.get(kind, 0) for resources in nodes))
    if workers > have:
        more = ", or let all nodes share RAYPATH_HOME" if node else ""
        where = "one node" if node else "Ray"
        raise ParamsError(
            f"finetune.workers={workers}, but {where} has {have} {kind}s", fix=f"set at most {have}{more}"
        )


def _train(ctx: Context, task: dict[str, Any], workers: int) -> Metrics:
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.batches.token_dataset import load_token_dataset
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.loop.trainer import Training
    from raypath.components.training.runtime.memory import peaks

    params = FinetuneParams.model_validate_json(json.dumps(task["params"]))
    metadata = ModelMetadata.model_validate_json(json.dumps(task["metadata"]))
    train, valid = (load_token_dataset(task[part], task["labels"]) for part in ("train", "valid"))
    training = Training(
        TrainingJob(
            task=load_task(metadata, params.objective).fit(train.targets),
            folder=Path(task["folder"]),
            train=train,
            valid=valid,
            params=params,
            seed=ctx.seed,
            threads=params.threads_of(ctx.workers, workers),
            scratch=ctx.scratch,
            on_step=lambda step, steps, metrics: _on_step(ctx, step, steps, metrics),
            on_evaluation=lambda step, metrics: _on_evaluation(ctx, step, metrics),
            on_profile=lambda path: ctx.track.artifact(path, "profile"),
            log=ctx.log,
        )
    )
    if training.group.is_rank_zero:
        ctx.track.params({f"run.{name}": value for name, value in training.facts().items()})
        if training.prepared.memory_plan.summary:
            ctx.log.warning("memory: %s", training.prepared.memory_plan.summary)
    metrics = reuse.load(task["ready"], training) or training.run()
    chosen = training.task
    if chosen.needs_calibration:
        decoded = chosen.decode(training.predict(valid))
        chosen = load_task(chosen.calibrate(valid.targets, decoded), params.objective)
        metrics = chosen.metrics(valid.targets, decoded)
    training.prepared.save(ctx.out)
    if training.group.is_rank_zero:
        write_metadata(ctx.out, chosen.metadata)
        ctx.track.metrics(peaks())
    return metrics


def _on_step(ctx: Context, step: int, steps: int, metrics: Metrics) -> None:
    ctx.report(step, steps, f"loss {metrics['loss']:.3f}, {metrics['rows_per_second']:.0f} rows/s")
    if step % max(1, steps // 500) == 0:
        ctx.track.metrics({f"train/{name}": value for name, value in metrics.items()}, step)


def _on_evaluation(ctx: Context, step: int, metrics: Metrics) -> None:
    ctx.track.metrics({f"valid/{name}": value for name, value in metrics.items() if "/" not in name}, step)


def _model(ctx: Context, folder: Path, metrics: Metrics) -> Model:
    """Complete the folder with the base's tokenizer, byte by byte: rows keep fitting a model that started from it."""
    for path in (path for pattern in TOKENIZER_COPY for path in folder.glob(pattern)):
        shutil.copyfile(path, ctx.out / path.name)
    metadata = read_metadata(ctx.out)
    return Model(
        task=metadata.task,
        base=metadata.base,
        labels=metadata.labels,
        label_kind=metadata.label_kind,
        max_length=metadata.max_length,
        metrics={name: value for name, value in metrics.items() if "/" not in name},
    )


def _cause(error: BaseException) -> Exception | None:
    """The error of our own tree that made the workers fail, if one did."""
    from raypath.components.core.errors import RaypathError

    failures = getattr(error, "worker_failures", {}) or {}
    for failure in failures.values():
        inner = getattr(failure, "cause", failure)
        if isinstance(inner, RaypathError):
            return inner
    return None
