"""Results of the Python interface and of `raypath ... --json`, which prints exactly these models.

Fields are added, never renamed or removed, within a major version of Raypath. `started`, `ended` and
`created` of runs and models are seconds since 1970, times of services and keys are datetimes, durations are seconds;
"" and None mean "not known" or "not there". Results of runs are in `run_results`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Base of all results."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


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


class CertificateStatus(Result):
    """A certificate, or a revocation list, of TLS."""

    name: str
    file: str
    subject: str
    hosts: list[str]
    """Names and addresses that it is for."""
    expires: datetime | None
    days_left: int | None
    state: Literal["valid", "expires soon", "expired", "invalid", "not loaded"]
    """expires soon: within 30 days. not loaded: the file was changed, and the endpoints use what it had before."""
    message: str


class Status(Result):
    """Services of a project and its endpoints."""

    home: str
    services: list[ServiceStatus]
    endpoints: list[EndpointStatus]
    public_url: str
    """URL of the endpoints for other machines."""
    shard_cache: ShardCacheStatus | None
    certificates: list[CertificateStatus] = []
    """Of the listener for other machines."""


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
