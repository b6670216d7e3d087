"""Trial journal: an append-only file with one event a line, from which an interrupted search resumes.

Events are in the order in which the search saw them. Replaying them brings sampler and scheduler to the same state.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypath.components.core.errors import RaypathError, StepFailed, kinds
from raypath.components.tuning.search_space import Values

FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"
Event = dict[str, Any]


@dataclass
class TrialRecord:
    """One trial: settings, scores, cost and status."""

    trial: int
    values: Values
    scores: dict[int, float] = field(default_factory=dict)
    """By rung; higher is better."""
    value: float | None = None
    """Value of the metric at the last rung."""
    metric: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """All metrics at the last rung."""
    seconds: float = 0.0
    """Time spent in the trial, over all attempts."""
    status: str = ""
    """finished, stopped early or failed; empty while it runs."""
    error: tuple[str, str, str] = ("", "", "")
    """Error of a failed trial: class, message, fix."""
    clones: list[str] = field(default_factory=list)
    """Trials whose weights it took over, in order."""

    @property
    def rung(self) -> int:
        """Last rung reached."""
        return max(self.scores, default=0)

    @property
    def score(self) -> float | None:
        """Score at the last rung."""
        return self.scores.get(self.rung)


class TrialJournal:
    """Trials of a search, stored in a file. `rungs` is the last rung of a trial that runs to its end."""

    def __init__(self, path: Path, rungs: int) -> None:
        self.path, self.rungs = path, rungs
        self.entries: dict[int, TrialRecord] = {}
        self.events: list[Event] = []
        self._read()
        self._spent = float(self.events[-1]["at"]) if self.events else 0.0
        self._start = time.monotonic()
        for entry in self.open():
            if entry.rung >= rungs:
                self.end(entry.trial)

    def propose(self, trial: int, values: Mapping[str, Any]) -> None:
        """Record a new trial with these values."""
        self._add({"event": "proposed", "trial": trial, "values": dict(values)})

    def reach(self, trial: int, **facts: Any) -> None:
        """Record that a trial reached a rung; facts: rung, score, value, metric, metrics, seconds, values, clone."""
        self._add({"event": "rung", "trial": trial, **facts})

    def adopt(self, trial: int, values: Mapping[str, Any], clone: str) -> None:
        """Record that a trial took over the weights of trial `clone` and continues with these values."""
        self._add({"event": "adopted", "trial": trial, "values": dict(values), "clone": clone})

    def end(self, trial: int, error: RaypathError | None = None, seconds: float = 0.0) -> None:
        """Record the end of a trial: failed with `error`, finished at the last rung, else stopped early."""
        status = FAILED if error else FINISHED if self.entries[trial].rung >= self.rungs else STOPPED
        why = (type(error).__name__, error.what, error.fix) if error else ("", "", "")
        self._add({"event": "ended", "trial": trial, "status": status, "error": why, "seconds": seconds})

    def open(self) -> list[TrialRecord]:
        """List the trials still running."""
        return [entry for entry in self.entries.values() if not entry.status]

    def best(self) -> TrialRecord | None:
        """Return the trial with the highest score among those that came furthest; the first of equals."""
        scored = [entry for entry in self.entries.values() if entry.score is not None and entry.status != FAILED]
        return max(scored, key=lambda entry: (entry.rung, entry.score, -entry.trial), default=None)

    def errors(self) -> list[RaypathError]:
        """List the errors of failed trials."""
        found = [entry.error for entry in self.entries.values() if entry.status == FAILED]
        return [kinds().get(kind, StepFailed)(what, fix=fix) for kind, what, fix in found]

    def table(self) -> list[dict[str, Any]]:
        """Build the table of trials.json: one row per trial."""
        return [_row(entry) for entry in self.entries.values()]

    def elapsed(self) -> float:
        """Seconds that the search has taken, including interrupted attempts."""
        return self._spent + time.monotonic() - self._start

    def _add(self, event: Event) -> None:
        event = {**event, "at": round(self.elapsed(), 3)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._apply(event)

    def _read(self) -> None:
        """Replay all complete lines; an incomplete last line is removed."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        if text and not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            os.truncate(self.path, len(text.encode()))
        for line in text.splitlines():
            self._apply(json.loads(line))

    def _apply(self, event: Event) -> None:
        self.events.append(event)
        if event["event"] == "proposed":
            self.entries[event["trial"]] = TrialRecord(event["trial"], event["values"])
            return
        entry = self.entries[event["trial"]]
        if event["event"] == "adopted":
            # Its scores belong to other weights and values.
            entry.values, entry.scores = event["values"], {}
            entry.clones.append(event["clone"])
            return
        entry.seconds += event["seconds"]
        if event["event"] == "ended":
            entry.status, entry.error = event["status"], tuple(event["error"])
            return
        entry.scores[event["rung"]] = event["score"]
        entry.value, entry.metric, entry.metrics = event["value"], event["metric"], event["metrics"]
        entry.values = event["values"]
        if event.get("clone"):
            # Scores of its former weights no longer apply.
            entry.scores = {r: s for r, s in entry.scores.items() if r <= event["rung"]}
            entry.clones.append(event["clone"])


def _row(entry: TrialRecord) -> dict[str, Any]:
    row = {
        "trial": entry.trial,
        "values": entry.values,
        "status": entry.status,
        "rung": entry.rung,
        "score": entry.score,
        "value": entry.value,
        "metrics": entry.metrics,
        "seconds": round(entry.seconds, 2),
        "clones": entry.clones,
    }
    return {**row, "error": entry.error[1]} if entry.error[1] else row
