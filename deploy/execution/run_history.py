"""Run history: one JSON file a run below HOME/runs, rewritten at each change of state; `raypath runs` reads it."""

from __future__ import annotations

import os
import secrets
import time
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from raypath.components.core.files import write_atomically
from raypath.deploy.store.audit.log import record, record_end


class RunStatus(StrEnum):
    """State of a run."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


class StepStatus(StrEnum):
    """State of a step in a run."""

    WAITING = "waiting"
    RUNNING = "running"
    REUSED = "reused"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def succeeded(self) -> bool:
        """True when the step has an artifact."""
        return self in (StepStatus.REUSED, StepStatus.DONE)

    @property
    def ran(self) -> bool:
        """True when the step was executed to an end in this run."""
        return self in (StepStatus.DONE, StepStatus.FAILED, StepStatus.STOPPED)


# Older homes call some fields by other names, which stay readable.
class StepState(BaseModel):
    """One step of a run."""

    model_config = ConfigDict(validate_by_name=True)

    name: str
    status: StepStatus = StepStatus.WAITING
    reason: str = ""
    """Reason for which the step ran or was reused."""
    key: str = ""
    key_inputs: dict[str, str] = Field({}, validation_alias=AliasChoices("key_inputs", "ingredients"))
    artifact: dict[str, Any] | None = None
    started: float = 0.0
    """Unix time, seconds."""
    seconds: float = 0.0
    attempts: int = 0
    error: str = ""
    warnings: list[str] = []
    notes: list[str] = []
    """Information that the step logged."""


class Run(BaseModel):
    """A run of a workflow."""

    model_config = ConfigDict(extra="ignore", validate_by_name=True)

    id: str
    workflow: str
    settings_digest: str = Field(validation_alias=AliasChoices("settings_digest", "plan"))
    """Digest of the workflow and its settings: the same command finds the run that it resumes."""
    params: dict[str, Any]
    status: RunStatus = RunStatus.RUNNING
    started: float
    """Unix time, seconds."""
    ended: float = 0.0
    pid: int = 0
    cluster: str = Field("", validation_alias=AliasChoices("cluster", "where"))
    """URL of the cluster; "" for this machine."""
    job_id: str = Field("", validation_alias=AliasChoices("job_id", "job"))
    """Name of the job on the cluster."""
    steps: list[StepState]

    def interrupted(self) -> bool:
        """Return True when the recorded status is running but the process on this machine has ended."""
        return self.status is RunStatus.RUNNING and not self.cluster and not Path(f"/proc/{self.pid}").exists()

    def step(self, name: str) -> StepState:
        """Return the state of a step."""
        return next(s for s in self.steps if s.name == name)

    def save(self, home: Path) -> None:
        """Write the run's file."""
        write_atomically(home / "runs" / f"{self.id}.json", self.model_dump_json(indent=1))


def load_runs(home: Path) -> list[Run]:
    """Load all runs, oldest first. Unreadable files are skipped."""
    found = []
    for path in sorted((home / "runs").glob("*.json")):
        try:
            found.append(Run.model_validate_json(path.read_text("utf-8")))
        except (OSError, ValidationError):
            continue
    return sorted(found, key=lambda run: run.started)


def find_run(runs: list[Run], name: str) -> Run | None:
    """Return the latest run whose id begins with `name`; `last` is the latest of all."""
    return next((run for run in reversed(runs) if name == "last" or run.id.startswith(name)), None)


def begin(
    home: Path,
    workflow: str,
    settings_digest: str,
    params: dict[str, Any],
    steps: list[str],
    name: str = "",
    cluster: str = "",
) -> Run:
    """Resume the latest unfinished run of the same workflow, settings and cluster, or create a new one.

    name: id of the run to resume or to create.
    """
    same = (workflow, settings_digest, cluster)
    known = [run for run in load_runs(home) if (run.workflow, run.settings_digest, run.cluster) == same]
    before = [run for run in known if name in ("", run.id)]
    states = [StepState(name=step) for step in steps]
    if before and before[-1].status is not RunStatus.DONE and not _is_running_elsewhere(before[-1]):
        run = before[-1].model_copy(update={"status": RunStatus.RUNNING, "steps": states, "ended": 0.0})
    else:
        run = Run(
            id=name or f"{time.strftime('%Y%m%d-%H%M%S')}-{workflow}-{secrets.token_hex(2)}",
            workflow=workflow,
            settings_digest=settings_digest,
            params=params,
            started=time.time(),
            steps=states,
            cluster=cluster,
        )
    run.pid = 0 if cluster else os.getpid()
    run.save(home)
    record(home, "run.start", run.id, detail={"workflow": workflow, "settings": settings_digest, "cluster": cluster})
    return run


def end(home: Path, run: Run, status: RunStatus, ended: float) -> None:
    """Save the status of a run, and record its end with the versions that it registered in the audit log."""
    known = run.status is status or status is RunStatus.RUNNING
    run.status, run.ended = status, ended
    run.save(home)
    if not known:
        made = [step.artifact for step in run.steps if step.status is StepStatus.DONE and step.artifact]
        registered = [each for each in made if {"name", "version", "alias"} <= each.keys()]
        models = [f"{each['name']}/{each['version']}@{each['alias']}" for each in registered]
        outcome = {RunStatus.DONE: "ok", RunStatus.STOPPED: "stopped"}.get(status, "failed")
        record_end(home, "run.end", run.id, outcome, {"workflow": run.workflow, "models": models})


def last_key_inputs(home: Path, workflow: str) -> dict[str, dict[str, str]]:
    """Return the cache key inputs of each step's latest success in this workflow, to explain what has changed since."""
    found: dict[str, dict[str, str]] = {}
    for run in load_runs(home):
        if run.workflow == workflow:
            found |= {s.name: s.key_inputs for s in run.steps if s.status.succeeded}
    return found


def _is_running_elsewhere(run: Run) -> bool:
    """Return True when another living process executes the run; a second run then gets an id of its own."""
    return run.status is RunStatus.RUNNING and not run.cluster and run.pid != os.getpid() and not run.interrupted()
