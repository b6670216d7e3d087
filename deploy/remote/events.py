"""Events of a remote run: its driver prints one JSON line for each change, marked with a prefix, into its log.

{"run": {...}}      the run without its steps        {"progress": {"key": ..., "line": {...}}}   progress of a step
{"step": {...}}     state of a step                  {"end": {...}}                              result or error
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.artifacts import Endpoint
from raypath.components.core.errors import RaypathError, StepFailed, kinds
from raypath.deploy.execution.progress import progress_file
from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus, end

EVENT_PREFIX = "@raypath "
PROGRESS_INTERVAL = 1.0
"""Seconds between two progress events of a step."""
_ERROR_PREFIX = "raypath: "


class RunEnd(BaseModel):
    """The end of a run: a result, an error of Raypath's tree, or neither for a run that was stopped."""

    model_config = ConfigDict(extra="ignore")

    result: dict[str, Any] | None = None
    kind: str = ""
    """The type of the workflow's result, or the class of the error."""
    what: str = ""
    fix: str = ""
    step: str = ""
    trace: str = ""
    seconds: float = 0.0

    @classmethod
    def from_error(cls, error: RaypathError, trace: str) -> RunEnd:
        """Describe the error that ended a run."""
        return cls(kind=type(error).__name__, what=error.what, fix=error.fix, step=error.step, trace=trace)

    def error(self) -> RaypathError | None:
        """The error that ended the run, None without one."""
        if self.result is not None or not self.kind:
            return None
        error = kinds().get(self.kind, StepFailed)(self.what, fix=self.fix, step=self.step)
        error.add_note(self.trace)
        return error

    def raise_error(self) -> None:
        """Raise the error that ended the run, if there is one."""
        if error := self.error():
            raise error

    def endpoint(self) -> Endpoint | None:
        """The result if it is an endpoint; other results are part of the steps."""
        return Endpoint.model_validate(self.result) if self.kind == Endpoint.__name__ else None


class EventWriter:
    """Run watcher of a driver: print an event whenever something has changed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._written: dict[str, str] = {}
        self._progress_time: dict[str, float] = {}

    def update(self, run: Run) -> None:
        """Write the events of what is new in this run."""
        self._write("run", "run", run.model_dump(mode="json", exclude={"steps"}))
        for step in run.steps:
            self._write("step", step.name, step.model_dump(mode="json", exclude={"key_inputs"}))
            last = self._progress_time.get(step.key, 0.0)
            if step.status is StepStatus.RUNNING and time.monotonic() - last >= PROGRESS_INTERVAL:
                self._progress_time[step.key] = time.monotonic()
                self._write_progress(step.key)

    def end(self, end: RunEnd) -> None:
        """Write the end of the run."""
        self._write("end", "end", end.model_dump(mode="json"))

    def _write_progress(self, key: str) -> None:
        try:
            line = json.loads(progress_file(self.home, key).read_text("utf-8"))
        except (OSError, ValueError):
            return
        self._write("progress", key, {"key": key, "line": line})

    def _write(self, kind: str, name: str, value: dict[str, Any]) -> None:
        text = json.dumps({kind: value})
        if self._written.get(f"{kind} {name}") != text:
            self._written[f"{kind} {name}"] = text
            print(f"{EVENT_PREFIX}{text}", flush=True)


class RunMirror:
    """Local copy of a remote run, built from its events and saved in `home`, where `raypath runs` finds it."""

    def __init__(self, home: Path, run: Run) -> None:
        self.home = home
        self.run = run
        self.end: RunEnd | None = None
        # The log is read from its beginning, so its events repeat what is known of the steps.
        self._known, run.steps = run.steps, [StepState(name=step.name) for step in run.steps]

    def apply(self, line: str) -> bool:
        """Apply a line of the log; False for a line that is no event."""
        if not line.startswith(EVENT_PREFIX):
            return False
        try:
            [(kind, value)] = json.loads(line.removeprefix(EVENT_PREFIX)).items()
            self._apply(kind, value)
        except (ValueError, ValidationError, KeyError, TypeError):
            return False  # truncated, or of a later version
        self._known = []
        return True

    def close(self, status: RunStatus) -> None:
        """Record the status of a run whose driver reported no end."""
        self.run.steps = self._known or self.run.steps
        for step in self.run.steps:
            step.status = StepStatus.STOPPED if step.status is StepStatus.RUNNING else step.status
        end(self.home, self.run, status, time.time())

    def _apply(self, kind: str, value: dict[str, Any]) -> None:
        if kind == "end":
            self.end = RunEnd.model_validate(value)
        elif kind == "progress":
            path = progress_file(self.home, _checked_key(value["key"]))
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_text(json.dumps(value["line"]), encoding="utf-8")
        elif kind == "run":
            end(self.home, self.run, RunStatus(value["status"]), float(value["ended"]))
            # A new attempt after a failed one: the end in the log is that of the attempt before.
            self.end = None if self.run.status is RunStatus.RUNNING else self.end
        elif kind == "step":
            state = StepState.model_validate(value)
            self.run.steps = [state if step.name == state.name else step for step in self.run.steps]
            self.run.save(self.home)


def last_error_line(lines: Iterable[str]) -> str:
    """The last error that a driver printed for a person, without its prefix; "" where it printed none."""
    found = [line.removeprefix(_ERROR_PREFIX) for line in lines if line.startswith(_ERROR_PREFIX)]
    return found[-1][:500] if found else ""


def _checked_key(key: str) -> str:
    """The key of a step. It comes from another machine and becomes a file name: only letters and digits pass."""
    if not key.isalnum():
        raise ValueError(key)
    return key
