"""The run of a live test in MLflow: counts of each replica as tags, what they show as metrics, and the decision."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raypath.components.registry.client import RegisteredVersion
from raypath.components.registry.evidence import Decision
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import trusted_keys
from raypath.components.registry.signing.records import verify_permission
from raypath.components.serving.live.counts import LiveCounts, merged
from raypath.components.tracking.tags import LIVE, LIVE_COUNTS, LIVE_DECISION, LIVE_DONE, NOTE


@dataclass(frozen=True)
class LiveState:
    """State of a live test."""

    counts: LiveCounts
    """Of all replicas, also of those that are gone."""
    decision: Decision | None
    done: bool
    """The registry and the replicas have followed the decision."""


class LiveRun:
    """The run of a live test. client: of MLflow; its methods raise MlflowException."""

    def __init__(self, client: Any, run: str) -> None:
        self.client, self.run = client, run

    def write(self, replica: str, counts: LiveCounts) -> None:
        """Store the counts of a replica, in place of its earlier ones."""
        self.client.set_tag(self.run, f"{LIVE_COUNTS}{replica}", counts.model_dump_json())

    def read(self) -> LiveState:
        """Return the state of the test."""
        return state_of(self.client.get_run(self.run).data.tags)

    def log(self, counts: LiveCounts, progress: str) -> None:
        """Log what all replicas' counts show, at the number of requests, and describe how far the test is."""
        from mlflow.entities import Metric, RunTag

        now, step = int(time.time() * 1000), counts.requests
        found = [Metric(f"live/{name}", value, now, step) for name, value in metrics_of(counts).items()]
        self.client.log_batch(self.run, metrics=found, tags=[RunTag(NOTE, progress)])

    def decide(self, decision: Decision) -> None:
        """Store the decision, and end the run."""
        self.client.set_tag(self.run, LIVE_DECISION, json.dumps(asdict(decision)))
        self.client.set_tag(self.run, NOTE, f"{outcome_of(decision)}: {decision.reason}")
        self.client.set_terminated(self.run, "FINISHED")

    def finish(self, outcome: str) -> None:
        """Record that the decision was followed, or why it was not."""
        self.client.set_tag(self.run, LIVE_DONE, outcome)


def live_progress(client: Any, version: RegisteredVersion, signing: Path | None) -> str:
    """Return how far the live test of a version is; "" without one that runs. signing: Folder of trusted keys."""
    from mlflow.exceptions import MlflowException

    if LIVE not in version.tags:
        return ""
    try:
        permission = verify_permission(version.name, version.version, version.tags, trusted_keys(signing))
        found = client.get_run(permission.run).data.tags
    except (MlflowException, Untrusted):  # the run was deleted
        return ""
    return "" if LIVE_DECISION in found else str(found.get(NOTE, ""))


def state_of(tags: Mapping[str, str]) -> LiveState:
    """Return the state of a test from the tags of its run."""
    found = [LiveCounts.model_validate_json(text) for key, text in tags.items() if key.startswith(LIVE_COUNTS)]
    text = tags.get(LIVE_DECISION)
    return LiveState(merged(found), Decision(**json.loads(text)) if text else None, LIVE_DONE in tags)


def metrics_of(counts: LiveCounts) -> dict[str, float]:
    """Return requests, agreement, latency relative to the champion's, and the rates of errors in both versions."""
    found = {"requests": float(counts.requests), "skipped": float(counts.skipped)}
    if counts.requests:
        found["agreement"] = counts.agreed / counts.requests
    if counts.latency.count:
        found["latency"] = counts.latency.ratio
    if counts.tokens.count:
        found["tokens"] = counts.tokens.ratio
    for name, side in (("errors", counts.challenger), ("errors_champion", counts.champion)):
        if side.requests:
            found[name] = side.failed / side.requests
    return found


def outcome_of(decision: Decision) -> str:
    """Say what a decision does to the version."""
    return "promoted" if decision.promote else "sent back"
