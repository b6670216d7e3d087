"""A version put in service: told to the replicas, waited for until every one has it, taken back if one refuses it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raypath.components.core.errors import PlatformError, RaypathError, Unavailable, UserError
from raypath.components.registry import aliases, tags
from raypath.components.serving.control import client, rollout
from raypath.components.serving.control import deployer as deploy
from raypath.components.serving.control.client import health, serves_version
from raypath.components.serving.control.proxy import _ROUTE
from raypath.components.serving.replica.status import is_scaled_to_zero, replica_statuses, running_replicas

if TYPE_CHECKING:
    from raypath.components.serving.spec import EndpointSpec


if TYPE_CHECKING:
    from raypath.components.serving.spec import EndpointSpec


class VersionRejected(Exception):
    """A replica did not take a version; the reason is its text. It never crosses a process."""


def swap_version(name: str, version: int, seconds: float = 120.0, before: int = 0) -> bool:
    """Serve another version of a model that is in service, as it is served now; returns once every replica has it.

    A service that has the model among others is told too. One scaled to zero stays so: the replica that the next
    request starts has the version, or refuses it. before: version that gets the alias back where one refuses. Returns
    whether a replica has it. Raises UserError when no such model is in service, and what `put` raises. Ray has to be
    connected.
    """
    hosts = [spec for spec in deployed_specs() if name == spec.name or name in spec.also]
    if not hosts:
        raise UserError(f"no model {name} is in service", fix="run a workflow that serves it")
    scaled_to_zero = [spec for spec in hosts if is_scaled_to_zero(spec.name)]
    roll_out(hosts, name, version, seconds, before, scaled_to_zero)
    return len(scaled_to_zero) < len(hosts)


def deployed_specs() -> list[EndpointSpec]:
    """Of all applications that `deploy` put up and that Serve has; asks no replica."""
    from ray import serve

    gone = ("DEPLOY_FAILED", "DELETING")
    found = serve.status().applications.items()
    there = (deploy.deployed_spec(name) for name, each in found if each.status not in gone or running_replicas(name))
    return [spec for spec in there if spec is not None]


def roll_out(
    hosts: Sequence[EndpointSpec],
    name: str,
    version: int,
    seconds: float,
    before: int = 0,
    scaled_to_zero: Sequence[EndpointSpec] = (),
) -> None:
    """Put a version of a model in service in these applications; returns once every replica has it.

    Where one refuses it, the previous champion is restored, in the registry and in all `hosts`. scaled_to_zero: those
    of them that are told and not waited for. Raises PlatformError with the reason, Unavailable after `seconds`.
    """
    now = {spec.name: _main(spec) for spec in hosts}
    try:
        for spec in hosts:
            asked = deploy.deploy(spec, version if spec.name == name else now[spec.name])
            if spec not in scaled_to_zero:
                wait_for_replicas(spec, name, version, seconds, asked)
    except VersionRejected as error:
        kept = _demote(hosts, name, version, before or now.get(name, 0), now)
        fix = "the version before is in service" if kept != version else "register the model again"
        raise PlatformError(f"{name}: {error}; version {kept} is champion", fix=fix) from None


def _main(spec: EndpointSpec) -> int:
    """The main version of an application in service; where none runs the champion, 0 without one."""
    found = next((state.versions.get(spec.name, 0) for state in replica_statuses(spec.name)), 0)
    champion = None if found else aliases.alias_target(spec.tracking, spec.name, tags.CHAMPION)
    return champion[0] if champion else found


def _demote(hosts: Sequence[EndpointSpec], name: str, version: int, before: int, now: dict[str, int]) -> int:
    """Undo; returns the champion. Where MLflow does not answer the alias stays, and the old version in service."""
    before = 0 if before == version else before
    try:
        kept = aliases.demote(hosts[0].tracking, name, version, before)
        for spec in hosts:
            if main := kept if spec.name == name else now[spec.name]:
                deploy.deploy(spec, main)
    except RaypathError:
        return version
    return kept


def wait_for_replicas(
    spec: EndpointSpec, name: str, version: int, seconds: float, asked: float, pause: float = 0.2
) -> None:
    """Until every running replica of an application has this version of a model, and the endpoint answers.

    asked: of the ReplicaPlan that says so; what a replica says of an earlier one does not count. Raises
    VersionRejected, PlatformError with Serve's reason, Unavailable after `seconds`.
    """
    began, told = time.monotonic(), ""
    while True:
        found = replica_statuses(spec.name, name if name != spec.name else "")
        for fault in (state.fault(name) for state in found if state.asked >= asked):
            if fault is not None and fault.version == version and fault.rejected:
                raise VersionRejected(fault.message())
            told = f" ({fault.reason})" if fault is not None else told
        whole = found and len(found) >= running_replicas(spec.name)
        if whole and all(state.asked >= asked and state.versions.get(name) == version for state in found):
            if name != spec.name or client.serves_version(spec.url, name, version):  # through the proxy, too
                return
        elif not found:
            client.health(spec.url)  # which wakes a first replica where none runs
        passed = time.monotonic() - began
        rollout.raise_if_failed(spec, passed)
        if passed > seconds:
            what = f"{name} version {version} did not answer at {spec.url} within {seconds:g} s{told}"
            raise Unavailable(what, fix="look at `raypath status` and at the logs of Ray Serve")
        time.sleep(pause)


STALE = 5.0
"""Seconds after which what answers at an address is this deployment, not one before."""


def wait_for_version(url: str, tracking: str, name: str, version: int, seconds: float, pause: float = 1.0) -> float:
    """Until an endpoint that follows the registry answers as this version; the seconds that it took.

    Raises PlatformError with the reason that the version is tagged with where a replica refused it, Unavailable after
    `seconds`.
    """
    began = time.monotonic()
    while True:
        there, passed = serves_version(url, name, version), time.monotonic() - began
        # Even where it answers: one replica may have taken what another refused.
        if told := _rejection_reason(tracking, name, version):
            raise PlatformError(
                f"{name}: version {version} was rejected: {told}", fix="the version before is in service"
            )
        if there:
            return passed
        if passed > seconds:
            what = f"{name} version {version} did not answer at {url} within {seconds:g} s"
            raise Unavailable(what, fix="is its RayService there? kubectl -n raypath get rayservices,pods")
        time.sleep(pause)


def _rejection_reason(tracking: str, name: str, version: int) -> str:
    from raypath.components.registry import aliases

    with contextlib.suppress(RaypathError):  # MLflow may be away for a moment
        return aliases.rejection_reason(tracking, name, version)
    return ""


def raise_if_failed(spec: EndpointSpec, passed: float) -> None:
    """Raise PlatformError when waiting for an application is in vain. passed: seconds since it was deployed."""
    from ray import serve

    name = spec.name
    state = serve.status().applications.get(name)
    if state is not None and state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        told = [state.message, *(d.message for d in state.deployments.values())]
        raise PlatformError(f"Ray Serve could not start {name}: {_reason(told)}", fix="look at the logs of Ray Serve")
    if passed > STALE and (found := health(spec.url)) is not None and found.get("name") != name:
        raise PlatformError(f"another service answers where {name} was to be", fix=_ROUTE)


def _reason(told: list[str]) -> str:
    """The line of a stack trace that says what went wrong."""
    lines = [line.strip() for text in told for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "Unavailable", "Exception"))]
    return ([*lines[:1], *errors] or ["no reason given"])[-1][:300]
