"""Search with Ray Tune: Optuna proposes settings, a scheduler stops or clones trials, a journal records events.

An interrupted search is run again with its journal: sampler and scheduler are restored, finished trials are skipped,
the others resume from their checkpoints.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from optuna.samplers import RandomSampler, TPESampler
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher
from ray.tune.search.optuna import OptunaSearch

from raypath.components.core.errors import ParamsError, RaypathError, StepFailed, kinds
from raypath.components.tuning.journal import FAILED, TrialJournal
from raypath.components.tuning.params import TuneParams
from raypath.components.tuning.placement import RecordedPlacement, remove_recorded
from raypath.components.tuning.population import catch_up
from raypath.components.tuning.search_space import Dimension, Values
from raypath.components.tuning.trial import TrialConfig, trial

STARTUP = 3
"""Random trials before the estimator is used. Optuna's default of 10 would make a search of 8 trials random."""


@dataclass(frozen=True)
class SearchPlan:
    """Settings of a search."""

    params: TuneParams
    searched: list[Dimension]
    trials: int
    first: list[Values]
    """Proposed first: the full grid, or the unchanged settings."""
    seed: int
    parallelism: int
    workers: int
    gpus: int


def search(plan: SearchPlan, trial_config: TrialConfig, journal: TrialJournal, on_change: Callable[[], None]) -> None:
    """Run the remaining trials and record them in the journal. `on_change` is called after every event."""
    with _quiet(plan.seed):
        _search(plan, trial_config, journal, on_change)


def _search(plan: SearchPlan, trial_config: TrialConfig, journal: TrialJournal, on_change: Callable[[], None]) -> None:
    catch_up(journal, trial_config.scratch)
    proposals = Proposals(plan, journal, trial_config.deadline)
    left = plan.trials - sum(bool(entry.status) for entry in journal.entries.values())
    if left <= 0 or proposals.over():
        return
    # Ray Tune's own state of an interrupted search is not used: the journal and the trials' checkpoints are.
    shutil.rmtree(trial_config.scratch / "search", ignore_errors=True)
    population = plan.params.scheduler == "pbt"
    # A population is created at once; the number of cores limits how many of it run.
    cores = plan.workers / plan.parallelism / (1 if population else 2)
    bundles = [{"CPU": cores, "GPU": plan.gpus / plan.parallelism}]
    where = {"bundle_label_selector": [trial_config.selector]} if trial_config.selector else {}
    record = trial_config.scratch / "placement-groups"
    remove_recorded(record)
    place = RecordedPlacement(bundles, record, **where)
    trainable = ray_tune.with_resources(ray_tune.with_parameters(trial, trial_config=trial_config), place)
    config = ray_tune.TuneConfig(
        num_samples=1 if population else left,
        max_concurrent_trials=None if population else plan.parallelism,
        scheduler=_scheduler(plan, trial_config, journal),
        search_alg=BasicVariantGenerator() if population else proposals,
        reuse_actors=True,
        trial_name_creator=_name,
        trial_dirname_creator=_name,
    )
    run = ray_tune.RunConfig(
        name="search",
        storage_path=str(trial_config.scratch),
        verbose=0,
        callbacks=[JournalCallback(journal, on_change)],
        stop=_Done(trial_config.rungs),
        failure_config=ray_tune.FailureConfig(max_failures=1),
        checkpoint_config=ray_tune.CheckpointConfig(num_to_keep=3),
    )
    space = {"trial": ray_tune.grid_search([proposals.next() for _ in range(left)])} if population else {}
    ray_tune.Tuner(trainable, param_space=space, tune_config=config, run_config=run).fit()


class Proposals(OptunaSearch):  # type: ignore[misc]
    """Optuna search algorithm with numbered trials from the journal; interrupted ones are proposed first."""

    def __init__(self, plan: SearchPlan, journal: TrialJournal, deadline: float) -> None:
        sampler = (
            TPESampler(seed=plan.seed, n_startup_trials=STARTUP)
            if plan.params.search == "tpe"
            else RandomSampler(seed=plan.seed)
        )
        space = {d.name: d.distribution() for d in plan.searched}
        super().__init__(space, metric="score", mode="max", sampler=sampler, points_to_evaluate=plan.first)
        self.journal, self.deadline = journal, deadline
        self.numbers: dict[str, int] = {}
        for event in journal.events:
            if event["event"] == "proposed":
                super().suggest(str(event["trial"]))
            elif event["event"] == "ended":
                self._conclude(event["trial"], event["status"] == FAILED)
        self.waiting = [entry.trial for entry in journal.open()]

    def over(self) -> bool:
        """Return True if the deadline has passed, or a setting is wrong for all trials."""
        return time.time() >= self.deadline or any(isinstance(e, ParamsError) for e in self.journal.errors())

    def next(self) -> dict[str, Any]:
        """Return an interrupted trial, else a new one: {"number": its number, "values": its settings}."""
        if self.waiting:
            number = self.waiting.pop(0)
        else:
            number = len(self.journal.entries)
            self.journal.propose(number, super().suggest(str(number)) or {})
        return {"number": number, "values": self.journal.entries[number].values}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Propose a trial to Ray Tune; FINISHED ends the search."""
        if self.over():
            return str(Searcher.FINISHED)
        found = self.next()
        self.numbers[trial_id] = found["number"]
        return {"trial": found}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: Optuna gets a trial's score when it ends."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the result of a trial to Optuna."""
        self._conclude(self.numbers[trial_id], error or "failed" in (result or {}))

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has the state."""

    def _conclude(self, number: int, failed: bool) -> None:
        score = self.journal.entries[number].score
        result = None if failed or score is None else {"score": score}
        super().on_trial_complete(str(number), result, error=failed)


class JournalCallback(ray_tune.Callback):  # type: ignore[misc]
    """Records the events of trials in the journal."""

    def __init__(self, journal: TrialJournal, on_change: Callable[[], None]) -> None:
        self.journal, self.on_change = journal, on_change
        self.since: dict[int, float] = {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.since[_number(trial)] = time.monotonic()

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        if "over" in result:
            return
        number = _number(trial)
        facts = {key: result[key] for key in ("rung", "score", "value", "metric", "metrics", "seconds", "clone")}
        # Population based training may have changed the trial's settings by now; the result has those it used.
        self.journal.reach(number, **facts, values=result["config"]["trial"]["values"])
        self.since[number] = time.monotonic()
        self.on_change()

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        failed = (trial.last_result or {}).get("failed")
        error = kinds().get(failed[0], StepFailed)(failed[1], fix=failed[2]) if failed else None
        self._end(trial, error)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines() or ["a trial's process died"]
        self._end(trial, StepFailed(lines[-1], fix="run again with --debug for the traceback"))

    def _end(self, trial: Any, error: RaypathError | None) -> None:
        number = _number(trial)
        lost = time.monotonic() - self.since.get(number, time.monotonic()) if error else 0.0
        self.journal.end(number, error, lost)
        self.on_change()


class _Done(ray_tune.Stopper):  # type: ignore[misc]
    """Ends a trial at its last rung, or when it reports `over`."""

    def __init__(self, rungs: int) -> None:
        self.rungs = rungs

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return "over" in result or result.get("rung", 0) >= self.rungs

    def stop_all(self) -> bool:
        return False


def _scheduler(plan: SearchPlan, trial_config: TrialConfig, journal: TrialJournal) -> TrialScheduler | None:
    if plan.params.scheduler == "none":
        return None
    common = {"time_attr": "rung", "metric": "score", "mode": "max"}
    if plan.params.scheduler == "pbt":
        moves = {d.name: d.mutation() for d in plan.searched}
        clip = functools.partial(_clip, plan.searched)
        return PopulationBasedTraining(
            **common, perturbation_interval=1, hyperparam_mutations={"trial": {"values": moves}}, custom_explore_fn=clip
        )
    asha = ASHAScheduler(**common, max_t=trial_config.rungs, grace_period=1, reduction_factor=plan.params.reduction)
    for event in journal.events:
        if event["event"] == "rung":
            past = SimpleNamespace(trial_id=f"past-{event['trial']}")
            asha.on_trial_add(None, past)
            asha.on_trial_result(None, past, event)
    return asha


def _clip(searched: list[Dimension], config: dict[str, Any]) -> dict[str, Any]:
    """Clip the settings that population based training proposes to their ranges."""
    values = config["trial"]["values"]
    values |= {d.name: d.clip(values[d.name]) for d in searched}
    return config


def _name(trial: Any) -> str:
    return f"trial-{trial.config['trial']['number']:02d}"


def _number(trial: Any) -> int:
    return int(str(trial).rpartition("-")[2])


@contextlib.contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Silence the tables and warnings of Ray Tune; the live view has the progress."""
    import logging

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Population based training uses these generators.
    random.seed(seed)
    np.random.seed(seed % 2**32)
    loud = [logging.getLogger(name) for name in ("ray.tune", "optuna", "ray.train")]
    levels = [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)
