"""The diary of runs: one JSON file a run, rewritten at each change, so that `raypath runs` can say what happened."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.files import write_atomically


class StepState(BaseModel):
    """One step of a run. status: waiting, running, reused, done, failed or stopped."""

    name: str
    status: str = "waiting"
    reason: str = ""
    key: str = ""
    ingredients: dict[str, str] = {}
    artifact: dict[str, Any] | None = None
    started: float = 0.0
    seconds: float = 0.0
    attempts: int = 0
    error: str = ""
    warnings: list[str] = []


class Run(BaseModel):
    """A run of a workflow. status: running, done, failed or stopped."""

    model_config = ConfigDict(extra="ignore")

    id: str
    workflow: str
    plan: str
    """Digest of workflow and settings: the same line again finds the run it continues."""
    params: dict[str, Any]
    status: str = "running"
    started: float
    ended: float = 0.0
    pid: int = 0
    where: str = ""
    """Address of the cluster that it runs on; "" for this machine."""
    job: str = ""
    """What the cluster calls it."""
    steps: list[StepState]

    def cut_off(self) -> bool:
        """Whether it says that it runs, but its process on this machine is gone."""
        return self.status == "running" and not self.where and not Path(f"/proc/{self.pid}").exists()

    def step(self, name: str) -> StepState:
        """The state of a step."""
        return next(s for s in self.steps if s.name == name)

    def save(self, home: Path) -> None:
        """Write the run's file."""
        write_atomically(home / "runs" / f"{self.id}.json", self.model_dump_json(indent=1))


def load_runs(home: Path) -> list[Run]:
    """All runs, oldest first. A file that cannot be read is left out."""
    found = []
    for path in sorted((home / "runs").glob("*.json")):
        try:
            found.append(Run.model_validate_json(path.read_text("utf-8")))
        except (OSError, ValidationError):
            continue
    return sorted(found, key=lambda run: run.started)


def begin(
    home: Path, workflow: str, plan: str, params: dict[str, Any], steps: list[str], name: str = "", where: str = ""
) -> Run:
    """A new run, or the last one of the same plan at the same place when it was cut off; `name` asks for an id."""
    known = [run for run in load_runs(home) if (run.workflow, run.plan, run.where) == (workflow, plan, where)]
    before = [run for run in known if name in ("", run.id)]
    states = [StepState(name=step) for step in steps]
    if before and before[-1].status != "done" and not _alive(before[-1]):
        run = before[-1].model_copy(update={"status": "running", "steps": states, "ended": 0.0})
    else:
        name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{workflow}-{secrets.token_hex(2)}"
        run = Run(id=name, workflow=workflow, plan=plan, params=params, started=time.time(), steps=states, where=where)
    run.pid = 0 if where else os.getpid()
    run.save(home)
    return run


def last_ingredients(home: Path, workflow: str) -> dict[str, dict[str, str]]:
    """By step: what its latest completed run of this workflow was made of, to say what changed since."""
    found: dict[str, dict[str, str]] = {}
    for run in load_runs(home):
        if run.workflow == workflow:
            found |= {s.name: s.ingredients for s in run.steps if s.status in ("done", "reused")}
    return found


def _alive(run: Run) -> bool:
    """Whether the process that ran it still does (then this is a second run beside it)."""
    return run.status == "running" and not run.where and run.pid != os.getpid() and not run.cut_off()
