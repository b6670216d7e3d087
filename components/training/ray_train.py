"""Launcher of training for `finetune` and `pretrain`; an interrupted step resumes from its last checkpoint.

One worker trains in the step's own process, without start-up cost; several train as a Ray Train worker group. Loop,
checkpoints and result are the same.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.artifacts import Dataset, Model
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError, Unavailable
from raypath.components.core.files import write_atomically
from raypath.components.models.base_models import TOKENIZER_COPY
from raypath.components.models.metadata import ModelMetadata, read_metadata, write_metadata
from raypath.components.training import trial_weights
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime.training_request import TrainingRequest

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from raypath.components.training.job import Metrics

METRICS = "metrics.json"
CONFIG = "config.json"
"""Configuration of the model; beside adapters alone, that of their base."""
RESTARTS = 3
"""Worker groups started again after a worker died."""


def fit(
    ctx: Context,
    folder: Path,
    metadata: ModelMetadata,
    splits: tuple[Dataset, Dataset],
    params: ResolvedParams,
    trained_weights: Path | None = None,
    seconds: float = 0.0,
) -> Model:
    """Train the model in `folder` on `splits` (train, valid); write it with tokenizer and metadata to `ctx.out`.

    trained_weights: weights that `tune` kept of the same training, used instead of training; seconds: estimated time,
    0 for none. Raises DataError for a split without rows, a base that does not open, or a NaN or infinite loss.
    """
    for split, name in zip(splits, ("train", "valid"), strict=True):
        if not split.rows:
            raise DataError(f"the {name} split has no rows; wanted at least one", fix=f"raise split.{name}, or give it")
    for split, name in zip(splits, ("train", "valid"), strict=True):
        ctx.track.dataset(split.source, split.digest, split.source, name, split.rows)
    train, valid = splits
    request = TrainingRequest(
        ctx.without_tracker(),
        folder,
        train.uri,
        valid.uri,
        len(train.labels),
        metadata,
        params,
        trained_weights,
        seconds,
    )
    metrics = _train(ctx, request, 1) if most_workers(params) == 1 else _train_group(request)
    return _model(ctx, folder, metrics)


def train_worker(config: dict[str, TrainingRequest]) -> None:
    """Entry point of each Ray Train worker: train, and on rank 0 save the model and the metrics."""
    import ray.train

    from raypath.components.tracking.run import attach

    context = ray.train.get_context()
    metrics: Metrics
    with config["request"].on_node(ray.get_runtime_context().get_node_id()) as request:
        ctx = request.context
        if context.get_world_rank() == 0:
            with attach(ctx.tracking, ctx.step) as run:
                metrics = _train(replace(ctx, track=run), request, context.get_world_size())
            # Ray Train returns metrics only together with a checkpoint.
            write_atomically(ctx.scratch / METRICS, json.dumps(metrics))
        else:
            metrics = _train(ctx, request, context.get_world_size())
    ray.train.report(metrics)


def most_workers(params: ResolvedParams) -> int:
    """Return the largest size of the worker group."""
    return max(params.workers, params.max_workers)


def _train_group(request: TrainingRequest) -> Metrics:
    """Train in a Ray Train worker group; if a worker dies, a new group resumes from the last checkpoint.

    A RaypathError is raised at once, since a new group would fail the same way.
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    from raypath.components.data.streaming.ray_errors import out_of_memory

    ctx = request.context
    request = request.with_stored_files()
    _check_workers(request.params.workers, "GPU" if ctx.gpus else "CPU", request.node)
    for left in reversed(range(1 + RESTARTS)):
        try:
            _trainer(request).fit()
            break
        except TrainingFailedError as error:
            cause, message = _cause(error), out_of_memory(str(error)) or str(error).splitlines()[0]
            if cause is not None:
                raise cause from None
            if not left:
                raise Unavailable(f"training workers failed: {message}", fix="see the Ray logs") from None
            ctx.log.warning("training workers failed, a new group resumes: %s", message)
            request = request.with_stored_files()  # with the last checkpoint
    return dict(json.loads((ctx.scratch / METRICS).read_text(encoding="utf-8")))


def _trainer(request: TrainingRequest) -> TorchTrainer:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from raypath.components.training.runtime.process_group_backend import GroupConfig

    ctx = request.context
    gpu = ctx.gpus > 0
    scaling = ScalingConfig(
        num_workers=_workers(request.params),
        use_gpu=gpu,
        resources_per_worker={"GPU": 1} if gpu else {"CPU": 0.5},
        # GPUs of one node communicate faster than nodes; CPU workers would compete for the cores of theirs.
        placement_strategy="PACK" if gpu else "SPREAD",
        label_selector=_selector(request),
    )
    # A new name for every attempt: Ray Train would resume a run of the same name, and resuming is by Raypath's own
    # checkpoints. Its restarts are not used either: it would also restart after an error that is certain to recur.
    config = RunConfig(name=f"attempt-{time.time_ns()}", storage_path=str(ctx.scratch / "train"))
    return TorchTrainer(
        train_worker,
        train_loop_config={"request": request},
        torch_config=GroupConfig(folder=str(ctx.scratch)),
        scaling_config=scaling,
        run_config=config,
    )


def _selector(request: TrainingRequest) -> dict[str, str] | list[dict[str, str]] | None:
    """Return the label selector of the workers, or of each; that of the first, which gets rank 0, is the step's."""
    selector = request.context.selector
    if not request.stored:
        return selector or None
    return [selector, *({} for _ in range(most_workers(request.params) - 1))]


def _workers(params: ResolvedParams) -> int | tuple[int, int]:
    """Return the group size, for elastic training (smallest, largest)."""
    most = most_workers(params)
    return (params.workers, most) if most > params.workers else params.workers


def _check_workers(workers: int, kind: str, node: str) -> None:
    """Raise ParamsError for more workers than cores or GPUs: Ray Train would wait for them forever."""
    import ray

    nodes = [each["Resources"] for each in ray.nodes() if each["Alive"] and node in ("", each["NodeID"])]
    have = int(sum(resources.get(kind, 0) for resources in nodes))
    if workers > have:
        more = ", or let all nodes share RAYPATH_HOME" if node else ""
        where = "one node" if node else "Ray"
        raise ParamsError(
            f"finetune.workers={workers}, but {where} has {have} {kind}s", fix=f"set at most {have}{more}"
        )


def _train(ctx: Context, request: TrainingRequest, workers: int) -> Metrics:
    """Train as one of `workers` processes; on rank 0, write the model to `ctx.out`. Return the validation metrics."""
    from raypath.components.models.adapters import base_identity, is_adapter
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.batches.token_dataset import PRIVATE_WINDOW, WINDOW_NUMBERS, load_token_dataset
    from raypath.components.training.differential_privacy.units import row_units
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.loop.trainer import start_training
    from raypath.components.training.reports import TrainingReports
    from raypath.components.training.runtime.memory import peaks

    params = request.params
    window = PRIVATE_WINDOW if params.privacy.enabled else WINDOW_NUMBERS
    train, valid = (load_token_dataset(uri, request.labels, window) for uri in (request.train, request.valid))
    task = load_task(request.metadata, params.objective).fit(train.targets)
    reports = TrainingReports(ctx, task, params, request.seconds)
    training = start_training(
        TrainingJob(
            task=task,
            folder=request.folder,
            train=train,
            valid=valid,
            params=params,
            seed=ctx.seed,
            threads=params.threads_of(ctx.workers, workers),
            scratch=ctx.scratch,
            on_step=reports.on_step,
            on_evaluation=reports.on_evaluation,
            on_profile=lambda path: ctx.track.artifact(path, "profile"),
            log=ctx.log,
            units=row_units(request.train, len(train), params.privacy),
        )
    )
    first = training.group.is_rank_zero
    if first:
        reports.begin(training)
    reused = trial_weights.load(request.trained_weights, training)
    metrics = reused or training.run()
    if first and not reused:
        reports.end(training)
    if task.needs_calibration:
        decoded = task.decode(training.predict(valid))
        task = load_task(task.calibrate(valid.targets, decoded), params.objective)
        metrics = task.metrics(valid.targets, decoded)
    training.prepared.save(ctx.out)
    if first:
        named = base_identity(request.folder) if is_adapter(ctx.out) else {}
        write_metadata(ctx.out, task.trained_metadata.model_copy(update=named))
        ctx.track.metrics(peaks())
    return metrics


def _model(ctx: Context, folder: Path, metrics: Metrics) -> Model:
    """Copy the base's tokenizer files unchanged, so that tokenized rows also fit models that start from this one."""
    from raypath.components.data.tokenization.conversation_rows import conversation_column
    from raypath.components.models.chat_template.source_target import load_template

    kept = (*TOKENIZER_COPY, *(() if (ctx.out / CONFIG).is_file() else (CONFIG,)))
    for path in (path for pattern in kept for path in folder.glob(pattern)):
        shutil.copyfile(path, ctx.out / path.name)
    metadata = read_metadata(ctx.out)
    if conversation_column(metadata.columns) is not None:
        load_template(folder).save(ctx.out)
    return Model(
        task=metadata.task,
        base=metadata.base,
        labels=metadata.labels,
        label_kind=metadata.label_kind,
        max_length=metadata.max_length,
        metrics={name: value for name, value in metrics.items() if "/" not in name},
    )


def _cause(error: BaseException) -> Exception | None:
    """Return the RaypathError that made a worker fail, if there is one."""
    from raypath.components.core.errors import RaypathError

    failures = getattr(error, "worker_failures", {}) or {}
    for failure in failures.values():
        inner = getattr(failure, "cause", failure)
        if isinstance(inner, RaypathError):
            return inner
    return None
