"""Search for good settings with Ray Tune: Optuna proposes, ASHA stops what lags behind.

A trial is a short run of the one training loop in an actor of its own; actors are reused, so a trial costs no start.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from components.core.artifacts import Dataset, Settings
from components.core.component import component
from components.core.context import Context
from components.core.errors import DataError, RaypathError
from components.core.params import Params, Positive
from components.finetune import check_base
from components.training.params import FinetuneParams


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if not 0 < span[0] <= span[1]:
        raise ValueError("wanted two numbers above 0, the lower one first")
    return span


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class TuneParams(Params):
    """Which settings are searched, how, and for how long."""

    trials: Annotated[int, Field(ge=0)] = 8
    """Settings that are tried; 0 skips the search."""
    lr: Range = (5e-5, 2e-4)
    """Learning rates searched, on a log scale."""
    weight_decay: Range = (0.01, 0.01)
    """Weight decays searched, on a log scale; two equal values leave it fixed."""
    metric: str = "log_loss"
    """The figure on the validation part that trials are judged by; in short trials the loss tells more than F1."""
    rows: Positive = 512
    """Training rows of a trial that runs to its end."""
    valid_rows: Positive = 256
    """Validation rows a trial is judged by."""
    rungs: Positive = 2
    """Looks at the validation part in a trial; at each, ASHA stops the worse ones."""
    reduction: Annotated[int, Field(ge=2)] = 2
    """ASHA keeps one in this many at a rung."""
    search: Literal["tpe", "random"] = "tpe"
    """How Optuna proposes settings: from what trials have shown (a tree of Parzen estimators), or at random."""
    concurrent: Annotated[int, Field(ge=0)] = 0
    """Trials that run side by side; 0 is one a core, or one a GPU."""


@component(version=1)
def tune(ctx: Context, train: Dataset, valid: Dataset, finetune: FinetuneParams, params: TuneParams) -> Settings:
    """The best of `params.trials` settings by `params.metric` on the validation part.

    Returns values for fields of FinetuneParams. Raises what a trial raised when all of them failed.
    """
    if params.trials == 0 or not _searched(params):
        return Settings(values={}, metric=params.metric, score=0.0, trials=0)
    folder = check_base(finetune, train)
    task = {
        "folder": str(folder),
        "labels": list(train.labels),
        "train": train.uri,
        "valid": valid.uri,
        "finetune": finetune.model_dump(mode="json"),
        "rows": params.rows,
        "valid_rows": params.valid_rows,
        "rungs": params.rungs,
        "seed": ctx.seed,
        "tracking": ctx.tracking,
        "step": ctx.step,
        "metric": params.metric,
        "scratch": str(ctx.scratch),
        "threads": max(1, ctx.workers // _side_by_side(ctx, params)),
    }
    results = _search(ctx, task, params)
    return _best(ctx, results, params)


def _side_by_side(ctx: Context, params: TuneParams) -> int:
    return min(params.trials, params.concurrent or ctx.gpus or ctx.workers)


def _search(ctx: Context, task: dict[str, Any], params: TuneParams) -> Any:
    from ray import tune as ray_tune
    from ray.tune.schedulers import ASHAScheduler

    from components.training.trials import trial

    side_by_side = _side_by_side(ctx, params)
    gpus = ctx.gpus / side_by_side if ctx.gpus else 0
    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(trial, task=task), {"cpu": ctx.workers / side_by_side / 2, "gpu": gpus}
    )
    # What Ray Tune kept of a search that was killed is of no use: finished trials are in our own journals.
    shutil.rmtree(ctx.scratch / "search", ignore_errors=True)
    asha = ASHAScheduler(max_t=params.rungs, grace_period=1, reduction_factor=params.reduction)
    config = ray_tune.TuneConfig(
        metric="score",
        mode="max",
        num_samples=params.trials,
        max_concurrent_trials=side_by_side,
        scheduler=asha,
        search_alg=_searcher(params, ctx.seed),
        reuse_actors=True,
    )
    run = ray_tune.RunConfig(
        name="search", storage_path=str(ctx.scratch), verbose=0, callbacks=[_progress(ctx.apart(), params)]
    )
    with _quiet():
        return ray_tune.Tuner(trainable, tune_config=config, run_config=run).fit()


def _searched(params: TuneParams) -> dict[str, tuple[float, float]]:
    spans = {"lr": params.lr, "weight_decay": params.weight_decay}
    return {name: span for name, span in spans.items() if span[0] < span[1]}


def _searcher(params: TuneParams, seed: int) -> Any:
    from optuna.samplers import RandomSampler, TPESampler
    from ray import tune as ray_tune
    from ray.tune.search.optuna import OptunaSearch

    space = {name: ray_tune.loguniform(*span) for name, span in _searched(params).items()}
    sampler = TPESampler(seed=seed) if params.search == "tpe" else RandomSampler(seed=seed)
    return OptunaSearch(space, sampler=sampler, metric="score", mode="max")


def _best(ctx: Context, results: Any, params: TuneParams) -> Settings:
    """The settings of the best trial; every trial's figures go to trials.json."""
    trials = [r for r in results if r.metrics and "score" in r.metrics]
    if not trials:
        raise _reason(results)
    trials.sort(key=lambda r: float(r.metrics["score"]), reverse=True)
    table = [{**_found(r.config), "score": float(r.metrics["score"]), "rung": int(r.metrics["rung"])} for r in trials]
    (ctx.out / "trials.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    # A trial that was stopped early is compared at its last rung, so prefer those that went as far as any.
    furthest = max(row["rung"] for row in table)
    best = next(row for row in table if row["rung"] == furthest)
    ctx.track.metrics({f"best/{params.metric}": abs(best["score"])})
    values: dict[str, float | int | str | bool] = {name: best[name] for name in _searched(params)}
    return Settings(values=values, metric=params.metric, score=best["score"], trials=len(trials))


def _found(config: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in config.items()}


def _reason(results: Any) -> Exception:
    for error in results.errors:
        cause = getattr(error, "cause", error)
        if isinstance(cause, RaypathError):
            return cause
        return DataError(f"every trial failed: {str(error).strip().splitlines()[-1]}", fix="see `raypath runs`")
    return DataError("no trial reported a score", fix="raise tune.trials or tune.rows")


def _progress(ctx: Context, params: TuneParams) -> Any:
    """A Ray Tune callback that tells the live view about trials as they end."""
    from ray.tune import Callback

    class Progress(Callback):  # type: ignore[misc]
        best = float("-inf")
        ended = 0
        rungs = 0

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            self.rungs += 1
            self.best = max(self.best, float(result["score"]))
            self._tell()

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.ended += 1
            self._tell()

        def _tell(self) -> None:
            note = f"{self.ended} of {params.trials} trials, best {abs(self.best):.3f}"
            ctx.report(max(self.ended, self.rungs / params.rungs), params.trials, note)

    return Progress()


@contextlib.contextmanager
def _quiet() -> Any:
    """Ray Tune prints tables and warnings of its own; the live view tells what matters."""
    import logging
    import os

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    loud = [logging.getLogger(name) for name in ("ray.tune", "optuna", "ray.train")]
    levels = [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)
