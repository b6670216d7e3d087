"""Results of the Python interface and of `raypath ... --json`, which prints exactly these models.

Fields are added, never renamed or removed, within a major version of Raypath. `started`, `ended` and
`created` of runs and models are seconds since 1970, times of services and keys are datetimes, durations are seconds;
"" and None mean "not known" or "not there".
"""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.artifacts import Artifact, Endpoint, Release
from raypath.components.core.errors import UserError
from raypath.deploy.execution.run_history import Run as Record
from raypath.deploy.execution.run_history import StepState

if TYPE_CHECKING:
    from raypath.components.serving.client.client import Client

A = TypeVar("A", bound=Artifact)


class Result(BaseModel):
    """Base of all results."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


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
        component=state.key_inputs.get("component", ""),
        key=state.key,
        artifact=state.artifact,
    )


def _metrics(artifacts: dict[str, dict[str, Any]]) -> dict[str, float]:
    with_metrics = {name: each["metrics"] for name, each in artifacts.items() if each.get("metrics")}
    measured: dict[str, Any] = with_metrics.get("evaluate") or next(reversed(with_metrics.values()), {})
    return {name: float(value) for name, value in measured.items()}


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


class PlannedStep(Result):
    """One step of a plan."""

    name: str
    action: Literal["run", "reuse", "depends"]
    """depends: on what a step before it makes, or on services that are down now."""
    reason: str
    inputs: list[str]
    """The outputs of other steps that it takes."""
    output: str
    """Class of its artifact."""
    where: str
    """Place: this machine, or the kind of cluster."""
    seconds: float | None
    """Estimate from the run history; 0 for a step that is reused, None where it has never run."""


class Plan(Result):
    """Steps that a run would execute or reuse."""

    workflow: str
    on: str
    """Launcher: local, ray, kuberay or kubeflow."""
    steps: list[PlannedStep]
    seconds: float | None
    """Estimate for steps that run or may run, one after another; None where one of them has never run."""


class ServiceStatus(Result):
    """A local service: Ray or MLflow."""

    name: str
    state: Literal["up", "down", "died"]
    url: str
    pid: int
    since: datetime | None
    memory_mib: int
    log: str


class EndpointMessage(Result):
    """A notice of an endpoint."""

    role: str
    """main, canary, shadow, or `model NAME`."""
    text: str


class EndpointStatus(Result):
    """An endpoint in service."""

    name: str
    url: str
    status: str
    """ok, degraded (see `messages`), or scaled to zero."""
    versions: list[int]
    """Versions in service; two for a moment while one replaces another."""
    replicas: int
    requests_per_second: float
    messages: list[EndpointMessage]
    """Canary, shadow and rejected versions."""


class ShardCacheStatus(Result):
    """Shards of datasets that this machine keeps; None without a store in object storage."""

    folder: str
    shards: int
    bytes: int
    limit: int
    """Most bytes; beyond them the shards used longest ago are removed: so far `removed` of them."""
    removed: int
    removed_bytes: int


class Status(Result):
    """Services of a project and its endpoints."""

    home: str
    services: list[ServiceStatus]
    endpoints: list[EndpointStatus]
    public_url: str
    """URL of the endpoints for other machines."""
    shard_cache: ShardCacheStatus | None


class ModelVersion(Result):
    """A version of a registered model. live: progress of its test by live requests, as `shadow: 412 of 1,000 requests,
    agreement 98.1%`; "" without one."""

    name: str
    version: int
    aliases: list[str]
    metrics: dict[str, float]
    """On the test split."""
    created: float
    tags: dict[str, str]
    live: str = ""


class Promotion(Result):
    """A version that was made the champion."""

    name: str
    version: int
    previous: int
    """The champion before; 0 for none."""
    serving: Literal["in service", "scaled to zero", "not in service"]
    """State of the model's endpoint after the change."""
