"""How a run elsewhere is seen here: its driver writes what changes into its log, a line of JSON each, marked as ours.

{"run": {...}}      the run without its steps        {"progress": {"key": ..., "line": {...}}}   how far a step is
{"step": {...}}     a step's state                   {"end": {...}}                              what came of it
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.artifacts import Endpoint
from raypath.components.core.errors import RaypathError, StepFailed, kinds
from raypath.deploy.execution.progress import progress_file
from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus

EVENT_PREFIX = "@raypath "
PACE = 1.0
"""Seconds between two lines on how far a step is."""


class End(BaseModel):
    """What came of a run: a result, an error of our tree, or neither where it was stopped."""

    model_config = ConfigDict(extra="ignore")

    result: dict[str, Any] | None = None
    kind: str = ""
    """The workflow's type of result, or the error's class."""
    what: str = ""
    fix: str = ""
    step: str = ""
    trace: str = ""
    seconds: float = 0.0

    @classmethod
    def of(cls, error: RaypathError, trace: str) -> End:
        """For an error."""
        return cls(kind=type(error).__name__, what=error.what, fix=error.fix, step=error.step, trace=trace)

    def error(self) -> RaypathError | None:
        """The error that it ended with, if it did."""
        if self.result is not None or not self.kind:
            return None
        error = kinds().get(self.kind, StepFailed)(self.what, fix=self.fix, step=self.step)
        error.add_note(self.trace)
        return error

    def raise_error(self) -> None:
        """Raise it."""
        if error := self.error():
            raise error

    def endpoint(self) -> Endpoint | None:
        """The result, where it is one; what others come to stands in the steps."""
        return Endpoint.model_validate(self.result) if self.kind == Endpoint.__name__ else None


class EventWriter:
    """The watcher of a driver: writes a line whenever something has changed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._told: dict[str, str] = {}
        self._paced: dict[str, float] = {}

    def update(self, run: Run) -> None:
        """Tell what is new."""
        self._tell("run", "run", run.model_dump(mode="json", exclude={"steps"}))
        for step in run.steps:
            self._tell("step", step.name, step.model_dump(mode="json", exclude={"key_inputs"}))
            if step.status is StepStatus.RUNNING and time.monotonic() - self._paced.get(step.key, 0.0) >= PACE:
                self._paced[step.key] = time.monotonic()
                self._progress(step.key)

    def end(self, end: End) -> None:
        """Tell what came of it."""
        self._tell("end", "end", end.model_dump(mode="json"))

    def _progress(self, key: str) -> None:
        try:
            line = json.loads(progress_file(self.home, key).read_text("utf-8"))
        except (OSError, ValueError):
            return
        self._tell("progress", key, {"key": key, "line": line})

    def _tell(self, kind: str, name: str, value: dict[str, Any]) -> None:
        text = json.dumps({kind: value})
        if self._told.get(f"{kind} {name}") != text:
            self._told[f"{kind} {name}"] = text
            print(f"{EVENT_PREFIX}{text}", flush=True)


class RunMirror:
    """A run as the lines of its driver draw it; kept in `home`, so that `raypath runs` knows it."""

    def __init__(self, home: Path, run: Run) -> None:
        self.home = home
        self.run = run
        self.end: End | None = None
        # What is known is told again from the beginning.
        self._known, run.steps = run.steps, [StepState(name=step.name) for step in run.steps]

    def take(self, line: str) -> bool:
        """Take a line in; False when it is not one of ours."""
        if not line.startswith(EVENT_PREFIX):
            return False
        try:
            [(kind, value)] = json.loads(line.removeprefix(EVENT_PREFIX)).items()
            self._take(kind, value)
        except (ValueError, ValidationError, KeyError, TypeError):
            return False  # cut short, or of a later Raypath
        self._known = []
        return True

    def close(self, status: RunStatus) -> None:
        """Set down how a run ended whose driver did not come to tell it."""
        self.run.steps = self._known or self.run.steps
        self.run.status, self.run.ended = status, time.time()
        for step in self.run.steps:
            step.status = StepStatus.STOPPED if step.status is StepStatus.RUNNING else step.status
        self.run.save(self.home)

    def _take(self, kind: str, value: dict[str, Any]) -> None:
        if kind == "end":
            self.end = End.model_validate(value)
        elif kind == "progress":
            path = progress_file(self.home, _plain(value["key"]))
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_text(json.dumps(value["line"]), encoding="utf-8")
        elif kind == "run":
            self.run.status, self.run.ended = RunStatus(value["status"]), float(value["ended"])
            # A driver that follows one that failed has its own end before it.
            self.end = None if self.run.status is RunStatus.RUNNING else self.end
            self.run.save(self.home)
        elif kind == "step":
            state = StepState.model_validate(value)
            self.run.steps = [state if step.name == state.name else step for step in self.run.steps]
            self.run.save(self.home)


def _plain(key: str) -> str:
    """A step's key; it becomes a file's name here, and comes from another machine."""
    if not key.isalnum():
        raise ValueError(key)
    return key
