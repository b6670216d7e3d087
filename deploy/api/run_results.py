"""A run and its steps, as results of the Python interface and of `raypath ... --json`."""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from raypath.components.core.artifacts import Artifact, Endpoint, Release, Report
from raypath.components.core.errors import UserError
from raypath.deploy.api.results import Result
from raypath.deploy.execution.mlflow_run import is_a
from raypath.deploy.execution.run_history import Run as Record
from raypath.deploy.execution.run_history import StepState

if TYPE_CHECKING:
    from raypath.components.serving.client.client import Client

A = TypeVar("A", bound=Artifact)


class Step(Result):
    """One step of a run."""

    name: str
    status: str
    """waiting, running, reused, done, failed or stopped."""
    seconds: float
    reason: str
    """Why the step ran, or that nothing changed."""
    attempts: int
    error: str
    warnings: list[str]
    notes: list[str]
    """What the step said besides warnings, such as the settings that `configure` chose and why."""
    component: str
    """module:function of its component."""
    key: str
    """Cache key: the same key means the same result."""
    artifact: dict[str, Any] | None
    """The artifact as JSON; `Run.artifacts` has it typed."""


class Run(Result):
    """One run of a workflow."""

    id: str
    workflow: str
    status: str
    """running, done, failed, stopped, or interrupted (its process is gone)."""
    started: float
    ended: float
    seconds: float
    cluster: str
    """URL of the cluster; "" for this machine."""
    home: str
    """Home folder of the project."""
    settings: dict[str, Any]
    """Every setting by its dotted key."""
    steps: list[Step]
    metrics: dict[str, float]
    """Metrics on the test split, of the step `evaluate`; else of the last step that has some."""
    warnings: list[str]
    """Warnings of all steps."""
    notes: list[str]
    """Notes of all steps."""
    release: Release | None
    """The version in the model registry."""
    endpoint: Endpoint | None
    """The endpoint that the run made."""

    @classmethod
    def of(cls, record: Record, home: Path) -> Run:
        """Convert a record of the run history."""
        artifacts = {step.name: step.artifact for step in record.steps if step.artifact}
        interrupted = record.interrupted()
        ended = record.ended or (0.0 if interrupted else time.time())
        return cls(
            id=record.id,
            workflow=record.workflow,
            status="interrupted" if interrupted else str(record.status),
            started=record.started,
            ended=record.ended,
            seconds=round(max(ended - record.started, 0.0), 3),
            cluster=record.cluster,
            home=str(home),
            settings=record.params,
            steps=[_step(state) for state in record.steps],
            metrics=_metrics(artifacts),
            warnings=[warning for step in record.steps for warning in step.warnings],
            notes=[note for step in record.steps for note in step.notes],
            release=_last(artifacts, Release),
            endpoint=_last(artifacts, Endpoint),
        )

    def __repr__(self) -> str:
        """Short form for notebooks and logs; the fields have everything."""
        main = [name for name in self.metrics if f"{name}_low" in self.metrics]
        facts = [f"{self.status} after {self.seconds:.1f} s", *(f"{name} {self.metrics[name]:.4f}" for name in main)]
        facts += [f"{self.release.name} version {self.release.version} @{self.release.alias}"] if self.release else []
        facts += [self.endpoint.url] if self.endpoint else []
        return f"<Run {self.id}: {', '.join(facts)}>"

    __str__ = __repr__

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The artifact of each step that has one, in the class that its component returns."""
        return {step.name: _typed(step) for step in self.steps if step.artifact}

    def step(self, name: str) -> Step:
        """Return a step by its name. Raises UserError for an unknown one."""
        found = next((step for step in self.steps if step.name == name), None)
        if found is None:
            raise UserError(
                f"run {self.id} has no step {name}", fix=f"its steps: {', '.join(s.name for s in self.steps)}"
            )
        return found

    def client(self, **options: Any) -> Client:
        """Return a client of the run's endpoint with this machine's key. Raises UserError without an endpoint.

        The key is not sent to a program of another user that listens at the endpoint's port.

        Args:
            options: As of `raypath.Client`; `key` and `url` replace the run's own.
        """
        from raypath.components.serving.client.client import Client
        from raypath.components.tracking import http

        if self.endpoint is None:
            raise UserError(f"run {self.id} has no endpoint", fix="run a workflow that ends in `serve`")
        file = Path(self.home) / "access" / "local.key"
        if "key" not in options and file.is_file():
            options |= {"key": file.read_text(encoding="ascii"), "check": http.check_listener}
        return Client(options.pop("url", self.endpoint.url), **options)


def _step(state: StepState) -> Step:
    return Step(
        name=state.name,
        status=str(state.status),
        seconds=round(state.seconds, 3),
        reason=state.reason,
        attempts=state.attempts,
        error=state.error,
        warnings=list(state.warnings),
        notes=list(state.notes),
        component=state.key_inputs.get("component", ""),
        key=state.key,
        artifact=state.artifact,
    )


def _metrics(artifacts: dict[str, dict[str, Any]]) -> dict[str, float]:
    measured = [each for each in artifacts.values() if each.get("metrics")]
    reports = [each for each in measured if is_a(each, Report)]
    found: dict[str, Any] = (reports or measured or [{"metrics": {}}])[-1]["metrics"]
    return {name: float(value) for name, value in found.items()}


def _last(artifacts: dict[str, dict[str, Any]], kind: type[A]) -> A | None:
    found = [artifact for each in artifacts.values() if (artifact := _read(kind, each)) is not None]
    return found[-1] if found else None


def _read(kind: type[A], artifact: dict[str, Any]) -> A | None:
    try:
        return kind.model_validate_json(json.dumps(artifact))
    except ValidationError:
        return None


def _typed(step: Step) -> Artifact:
    artifact = step.artifact or {}
    # A component that is not known or not installed here, or has changed since, leaves the URI and the digest.
    with contextlib.suppress(ImportError, AttributeError, ValueError):
        module, _, name = step.component.partition(":")
        output: type[Artifact] = getattr(importlib.import_module(module), name).output
        return output.model_validate_json(json.dumps(artifact))
    return Artifact(uri=str(artifact.get("uri", "")), digest=str(artifact.get("digest", "")))
