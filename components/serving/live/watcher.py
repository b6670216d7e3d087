"""Watcher of a live test, in each replica: store its counts, look at those of all replicas, and follow a decision.

The state is in MLflow alone: the counts of a replica that died count on, and whichever replica is left takes the
decision, or goes on where another was interrupted. A claim in the Ray cluster keeps two from doing so at a time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from raypath.components.core.errors import PlatformError, RaypathError
from raypath.components.registry.client import mlflow_client
from raypath.components.registry.live import Superseded, promote_live, send_back
from raypath.components.serving.control.spec_store import claim
from raypath.components.serving.live.counts import LiveCounts
from raypath.components.serving.live.decision import decide_live, progress
from raypath.components.serving.live.evidence_run import LiveRun, outcome_of

if TYPE_CHECKING:
    from raypath.components.serving.live.live_test import LiveTest, Trial

log = logging.getLogger("ray.serve")
SECONDS = 5.0
"""Seconds between two looks; a replica that is killed loses the counts of as many."""
CLAIM_SECONDS = 90.0
"""Seconds for a replica to follow a decision, before another takes it up."""


class Swap(Protocol):
    """Put a version of a deployed model in service; `swap_version` in control/rollout.py."""

    def __call__(self, name: str, version: int, *, before: int) -> object:
        """Return once every replica has loaded it. Raises RaypathError."""


async def watch_live(tracking: str, test: LiveTest, swap: Swap | None = None, seconds: float = SECONDS) -> None:
    """Watch the live test forever. Raises nothing.

    swap: Puts a version in service; None where replicas poll the registry.
    """
    stored: tuple[str, LiveCounts] | None = None
    while True:
        await asyncio.sleep(seconds)
        trial, counts = test.trial, test.counts.model_copy(deep=True)
        if trial is None:
            continue
        changed = stored != (trial.run, counts)
        try:
            found = await asyncio.to_thread(look, tracking, test, trial, counts if changed else None, swap)
        except RaypathError as error:
            log.warning("the live test of version %s cannot go on: %s", trial.version, error.what)
        except Exception:
            # A watcher that ended would leave the test undecided silently.
            log.exception("the live test of version %s cannot go on", trial.version)
        else:
            stored = trial.run, counts
            if test.trial == trial:
                test.merged = found


def look(
    tracking: str, test: LiveTest, trial: Trial, counts: LiveCounts | None, swap: Swap | None = None
) -> LiveCounts:
    """Store a replica's counts, decide if all counts allow it, and follow the decision; returns all counts.

    counts: None if they are stored. Raises RaypathError.
    """
    with mlflow_client(tracking) as client:
        run = LiveRun(client, trial.run)
        if counts is not None:
            run.write(test.replica, counts)
        state = run.read()
        decision = state.decision or decide_live(state.counts, test.rules, trial.role, f"version {trial.previous}")
        if counts is not None and state.decision is None:
            run.log(state.counts, f"{trial.role}: {progress(state.counts, test.rules)}")
        if decision is None or state.done or not claim(f"live/{trial.run}", test.replica, CLAIM_SECONDS):
            return state.counts
        # Another replica may have decided since the counts were read.
        decision = run.read().decision or decision
        run.decide(decision)
        try:
            if decision.promote:
                promote_live(client, trial.name, trial.version, trial.previous, decision.reason)
            else:
                send_back(client, trial.name, trial.version, decision.reason)
        except Superseded as error:
            run.finish(error.what)
            return state.counts
        log.warning(
            "version %s of %s was %s: %s",
            trial.version,
            trial.name,
            outcome_of(decision),
            decision.reason,
        )
        run.finish(_update_replicas(swap, trial, decision.promote))
        return state.counts


def _update_replicas(swap: Swap | None, trial: Trial, promoted: bool) -> str:
    """Let all replicas follow the aliases, where they do not poll them; returns what became of it."""
    if swap is None:
        return "the replicas follow the alias"
    version = trial.version if promoted else trial.previous
    try:
        swap(trial.name, version, before=trial.previous)
    except PlatformError as error:  # a replica rejected the version, and the champion before has its alias again
        log.warning("%s", error.what)
        return error.what
    return "in service"
