"""What a search has done, a line an event, so that one that was killed goes on where it stood.

The lines stand in the order in which the search learnt things. Reading them again tells the sampler and the scheduler
the same in the same order, so that they go on as if nothing had happened.
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
    """One trial: what it tried, how far it came, what it cost."""

    trial: int
    values: Values
    scores: dict[int, float] = field(default_factory=dict)
    """By rung; higher is better."""
    value: float | None = None
    """The metric as it is shown, at the last rung."""
    metric: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """All figures at the last rung."""
    seconds: float = 0.0
    """Spent in the trial, all attempts together."""
    status: str = ""
    """finished, stopped early, failed; "" while it runs."""
    error: tuple[str, str, str] = ("", "", "")
    """Of a failed trial: the class of the error, what, fix."""
    clones: list[str] = field(default_factory=list)
    """The trials whose weights it took over, in order."""

    @property
    def rung(self) -> int:
        """The last rung it reached."""
        return max(self.scores, default=0)

    @property
    def score(self) -> float | None:
        """At the last rung."""
        return self.scores.get(self.rung)


class TrialJournal:
    """The trials of a search, kept in a file. `rungs` is the last rung of a trial that runs to its end."""

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
        """A trial is to be run with these values."""
        self._add({"event": "proposed", "trial": trial, "values": dict(values)})

    def reach(self, trial: int, **facts: Any) -> None:
        """A trial reached a rung; facts: rung, score, figure, metric, metrics, seconds, values, clone."""
        self._add({"event": "rung", "trial": trial, **facts})

    def adopt(self, trial: int, values: Mapping[str, Any], clone: str) -> None:
        """A trial took over the weights of trial `clone`, and goes on with these values."""
        self._add({"event": "adopted", "trial": trial, "values": dict(values), "clone": clone})

    def end(self, trial: int, error: RaypathError | None = None, seconds: float = 0.0) -> None:
        """A trial is over: failed with `error`, finished when it reached the last rung, stopped early otherwise."""
        status = FAILED if error else FINISHED if self.entries[trial].rung >= self.rungs else STOPPED
        why = (type(error).__name__, error.what, error.fix) if error else ("", "", "")
        self._add({"event": "ended", "trial": trial, "status": status, "error": why, "seconds": seconds})

    def open(self) -> list[TrialRecord]:
        """Trials that are not over."""
        return [entry for entry in self.entries.values() if not entry.status]

    def best(self) -> TrialRecord | None:
        """The highest score among the trials that came furthest; of equals the first."""
        scored = [entry for entry in self.entries.values() if entry.score is not None and entry.status != FAILED]
        return max(scored, key=lambda entry: (entry.rung, entry.score, -entry.trial), default=None)

    def errors(self) -> list[RaypathError]:
        """Of the trials that failed."""
        found = [entry.error for entry in self.entries.values() if entry.status == FAILED]
        return [kinds().get(kind, StepFailed)(what, fix=fix) for kind, what, fix in found]

    def table(self) -> list[dict[str, Any]]:
        """A row a trial, in the order of their numbers."""
        return [_row(entry) for entry in self.entries.values()]

    def elapsed(self) -> float:
        """Seconds that the search has taken, those before a kill included."""
        return self._spent + time.monotonic() - self._start

    def _add(self, event: Event) -> None:
        event = {**event, "at": round(self.elapsed(), 3)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._apply(event)

    def _read(self) -> None:
        """Every whole line; one that a kill cut short is ended, so that the next starts on a line of its own."""
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
            # What it reached was by other weights and values.
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
            # What it had reached by its own weights is no longer true of it.
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
