"""Hyperparameter search with Ray Tune: Optuna proposes settings, a scheduler stops or clones trials.

A trial runs the training loop in an actor; actors are reused, so that a trial has no start-up cost. An interrupted
search resumes. Trials that are full fine-tunings (`rows`, `valid_rows` and `epochs` 0) leave the best one's weights to
`finetune`, which then does not train again.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from raypath.components.core.artifacts import Dataset, Model, Settings
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import ParamsError
from raypath.components.tasks.catalog import load_task
from raypath.components.tracking.run import end_run
from raypath.components.training import trial_weights
from raypath.components.training.compatibility import check_base, check_method, metadata_for
from raypath.components.training.params import FinetuneParams, ResolvedParams
from raypath.components.tuning.journal import FAILED, FINISHED, TrialJournal, TrialRecord
from raypath.components.tuning.params import TuneParams
from raypath.components.tuning.search_space import Dimension, Span, Values, grid, own_values

if TYPE_CHECKING:
    from raypath.components.tuning.trial import TrialConfig

__all__ = ["Span", "TuneParams", "tune"]


@component(version=2, by_shard=True)
def tune(
    ctx: Context,
    train: Dataset,
    valid: Dataset,
    finetune: FinetuneParams,
    params: TuneParams,
    start: Model | None = None,
    settings: Settings | None = None,
) -> Settings:
    """Return the best of `params.trials` settings by `params.metric` on the validation split.

    start: a model that trials start from instead of `finetune.base`, such as that of `pretrain`; settings: those that
    `configure` chose, which the search starts from. Returns them with the values found, for fields of FinetuneParams;
    the folder has trials.json, sweep.png and, for full fine-tunings, `best` with weights. Raises the error of the first
    trial when all failed.
    """
    from raypath.components.configuration.resolve import auto_names, resolve
    from raypath.components.training.differential_privacy.checks import check_private

    check_private(finetune)
    if finetune.privacy.enabled and params.trials:
        what = "each trial would spend privacy, which the search does not count"
        raise ParamsError(what, fix="set tune.trials=0, or search on rows that may be known")
    searched = params.searched()
    given, seconds = ({}, 0.0) if settings is None else (settings.values, settings.seconds)
    if params.trials == 0 or not searched or _is_fitted_once(finetune, given):
        return Settings(values=given, metric=params.metric or "", seconds=seconds)
    chosen = resolve(ctx, finetune, settings, (train, valid), start)
    # Values of the search replace those that were chosen; `finetune` is not to choose again.
    given = {name: getattr(chosen, name) for name in auto_names(finetune)} | given
    journal = TrialJournal(ctx.scratch / "search.jsonl", params.rungs)
    left = params.seconds - journal.elapsed() if params.seconds else math.inf
    trial_config = _trial_config(ctx, (train, valid), chosen, params, start, time.time() + left)
    trials = _run(ctx, journal, searched, chosen, params, trial_config)
    best = _best_trial(ctx, journal, trials, params, trial_config)
    if best is None:
        return Settings(values=given, metric=params.metric or "", trials=len(journal.entries), seconds=seconds)
    fingerprint = ""
    if (ctx.out / trial_weights.BEST).exists():
        fingerprint = trial_weights.training_fingerprint(
            ctx, chosen.override(best.values), trial_config.metadata, trial_config.folder, (train, valid)
        )
    return Settings(
        values=given | best.values,
        seconds=seconds,
        metric=best.metric,
        score=best.scores[best.rung],
        trials=len(journal.entries),
        training_fingerprint=fingerprint,
    )


def _is_fitted_once(finetune: FinetuneParams, given: Values) -> bool:
    """Return True for a linear probe: it has no settings to search."""
    return given.get("method", finetune.method) == "linear_probe"


def _trial_config(
    ctx: Context,
    splits: tuple[Dataset, Dataset],
    finetune: ResolvedParams,
    params: TuneParams,
    start: Model | None,
    deadline: float,
) -> TrialConfig:
    """Build the settings common to all trials. Raises DataError for an invalid base, or rows made for another one."""
    from raypath.components.tuning.trial import TrialConfig

    train, valid = splits
    full = _is_full_finetuning(splits, finetune, params)
    parallelism = _parallelism(ctx, finetune, params, full)
    threads = finetune.threads_of(ctx.workers, parallelism)
    folder = check_base(finetune, train, start)
    metadata = metadata_for(finetune, train, folder, start)
    check_method(load_task(metadata, finetune.objective), finetune)
    return TrialConfig(
        folder=folder,
        metadata=metadata,
        finetune=finetune.override({"epochs": params.epochs or finetune.epochs, "profile": 0}),
        train=train.uri,
        valid=valid.uri,
        train_rows=params.rows,
        valid_rows=params.valid_rows,
        rungs=params.rungs,
        metric=params.metric,
        seed=ctx.seed,
        threads=threads,
        scratch=ctx.scratch,
        tracking=ctx.tracking,
        step=ctx.step,
        selector=ctx.selector,
        keep=full and (ctx.gpus > 0 or threads == finetune.threads_of(ctx.workers, 1)),
        clones=params.scheduler == "pbt",
        deadline=deadline,
        concurrent_trials=math.ceil(parallelism / max(1, ctx.gpus)),
    )


def _is_full_finetuning(splits: tuple[Dataset, Dataset], finetune: ResolvedParams, params: TuneParams) -> bool:
    """Return True if trials are full fine-tunings. Clones are not: their settings change during training."""
    rows = zip(splits, (params.rows, params.valid_rows), strict=True)
    everything = all(not most or most >= split.rows for split, most in rows)
    alone = finetune.workers == 1 and finetune.max_workers <= 1
    return everything and params.epochs in (0, finetune.epochs) and alone and params.scheduler != "pbt"


def _parallelism(ctx: Context, finetune: ResolvedParams, params: TuneParams, full: bool) -> int:
    cores = ctx.workers // finetune.threads if finetune.threads else 1 if full else ctx.workers
    return max(1, min(params.trials, params.concurrent or ctx.gpus or cores))


def _run(
    ctx: Context,
    journal: TrialJournal,
    searched: list[Dimension],
    finetune: ResolvedParams,
    params: TuneParams,
    trial_config: TrialConfig,
) -> int:
    """Run the search; return the number of trials planned."""
    from raypath.components.tuning.search import SearchPlan, search

    first, trials = _first(ctx, searched, finetune, params)
    parallelism = _parallelism(ctx, finetune, params, trial_config.keep)
    plan = SearchPlan(params, searched, trials, first, ctx.seed, parallelism, ctx.workers, ctx.gpus)
    search(plan, trial_config, journal, _progress_callback(ctx.without_tracker(), journal, trials))
    for entry in journal.open():
        journal.end(entry.trial)
    for entry in journal.entries.values():
        # Ray Tune may end a trial's process before the trial has ended its run.
        run_id = f"{ctx.tracking.parent}/{ctx.step}/trial-{entry.trial:02d}"
        end_run(ctx.tracking, run_id, "FAILED" if entry.status == FAILED else "FINISHED")
    return trials


def _first(
    ctx: Context, searched: list[Dimension], finetune: ResolvedParams, params: TuneParams
) -> tuple[list[Values], int]:
    """Return (settings proposed first, number of trials): the grid, or finetune's own settings if in the search
    space."""
    if params.search != "grid":
        own = own_values(finetune, searched)
        return ([own] if own else []), params.trials
    chosen, size = grid(searched, params.points, params.trials, ctx.seed)
    if size > len(chosen):
        ctx.log.warning("the grid has %d settings, of which tune.trials=%d are tried", size, len(chosen))
    return chosen, len(chosen)


def _progress_callback(ctx: Context, journal: TrialJournal, trials: int) -> Callable[[], None]:
    """Create the callback for each event: report progress, delete files of finished trials."""

    def on_change() -> None:
        entries, best = journal.entries.values(), journal.best()
        done = sum(1.0 if entry.status else entry.rung / journal.rungs for entry in entries)
        note = f"{sum(bool(entry.status) for entry in entries)} of {trials} trials"
        ctx.report(done, trials, f"{note}, best {best.metric} {best.value:.3f}" if best else note)
        for entry in entries:
            folder = ctx.scratch / f"trial-{entry.trial:02d}"
            for name in ("last", "best", "rung", *(() if entry is best else ("kept",))) if entry.status else ():
                shutil.rmtree(folder / name, ignore_errors=True)

    return on_change


def _best_trial(
    ctx: Context, journal: TrialJournal, trials: int, params: TuneParams, trial_config: TrialConfig
) -> TrialRecord | None:
    """Return the best trial; write its kept weights, the table and the plot to `ctx.out`.

    Returns None if the deadline passed before any trial reached a rung. Raises the first error when all failed.
    """
    best, errors = journal.best(), journal.errors()
    if best is None and errors:
        # The next attempt starts over: the cause of the failures may have been fixed.
        journal.path.unlink()
        raise errors[0]
    done = sum(entry.status == FINISHED for entry in journal.entries.values())
    if time.time() >= trial_config.deadline:
        ctx.log.warning("tune.seconds=%g ended the search: %d of %d trials finished", params.seconds, done, trials)
        ctx.report(trials, trials, f"out of time, {done} of {trials} trials finished")
    if best is None:
        return None
    kept = ctx.scratch / f"trial-{best.trial:02d}" / "kept"
    if trial_config.keep and best.status == FINISHED and kept.exists():
        shutil.copytree(kept, ctx.out / trial_weights.BEST)
    _show(ctx, journal, best, params)
    return best


def _show(ctx: Context, journal: TrialJournal, best: TrialRecord, params: TuneParams) -> None:
    """Write trials.json and sweep.png to the folder and to MLflow."""
    from raypath.components.evaluation.plots import style
    from raypath.components.tuning import plot as sweep

    table = journal.table()
    compute = round(sum(row["seconds"] for row in table), 2)
    how = {"metric": best.metric, "search": params.search, "scheduler": params.scheduler, "best": best.trial}
    text = json.dumps({**how, "compute_seconds": compute, "trials": table}, indent=1)
    (ctx.out / "trials.json").write_text(text, encoding="utf-8")
    figure = sweep.sweep(table, params.searched(), best.metric, best.trial)
    ctx.track.artifact(style.save(figure, ctx.out / "sweep.png"), "plots")
    ctx.track.metrics({f"best/{best.metric}": best.value or 0.0, "compute_seconds": compute})
