"""Roll out a model version: update the replicas, wait until each has loaded it, roll back if one rejects it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from raypath.components.core.errors import PlatformError, RaypathError, Unavailable, UserError
from raypath.components.registry import aliases, tags
from raypath.components.registry.snapshot import registry_snapshot
from raypath.components.serving.control.client import health, serves_version
from raypath.components.serving.control.deployer import deploy
from raypath.components.serving.control.proxy import ROUTE_FIX
from raypath.components.serving.control.spec_store import load_spec
from raypath.components.serving.replica.status import is_scaled_to_zero, replica_statuses, running_replicas
from raypath.components.serving.replica_plan import build_plan

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import ReplicaPlan
    from raypath.components.serving.spec import EndpointSpec

logger = logging.getLogger(__name__)
STALE_SECONDS = 5.0
"""Seconds after a deployment from which a response at the URL is by this deployment, not by an earlier one."""


class VersionRejected(Exception):
    """A replica rejected a version; the message is the reason. Never leaves this module."""


def swap_version(name: str, version: int, seconds: float = 120.0, before: int = 0) -> bool:
    """Serve another version of a deployed model; returns once every replica has loaded it.

    Endpoints that serve the model as an additional one are updated too. An endpoint that is scaled to zero stays so:
    its next replica loads the version on the cold start. Requires a connection to Ray.

    Args:
        before: The version that receives the alias if this one is rejected; 0 takes the previous champion.

    Returns True if a replica serves the version now. Raises UserError if no endpoint serves the model, and the errors
    of `roll_out`.
    """
    hosts = [spec for spec in deployed_specs(name) if name == spec.name or name in spec.serve.extra_models]
    if not hosts:
        raise UserError(f"no model {name} is in service", fix="run a workflow that serves it")
    scaled_to_zero = [spec for spec in hosts if is_scaled_to_zero(spec.name)]
    roll_out(hosts, name, version, seconds, before, scaled_to_zero)
    return len(scaled_to_zero) < len(hosts)


def deployed_specs(required: str = "") -> list[EndpointSpec]:
    """Return the specs of Raypath's applications in Serve, without querying a replica.

    One that failed and has no replica is left out unless it is `required`: another version may bring it back. Those of
    another version of Raypath are skipped with a warning. Raises PlatformError if `required` is one of them.
    """
    from ray import serve

    found = serve.status().applications.items()
    specs = []
    for name, each in found:
        lost = each.status == "DELETING" or (each.status == "DEPLOY_FAILED" and name != required)
        if lost and not running_replicas(name):
            continue
        try:
            specs.append(load_spec(name))
        except PlatformError as error:
            if name == required:
                raise
            logger.warning("skipped: %s", error)
    return [spec for spec in specs if spec is not None]


def roll_out(
    hosts: Sequence[EndpointSpec],
    name: str,
    version: int,
    seconds: float,
    before: int = 0,
    scaled_to_zero: Sequence[EndpointSpec] = (),
) -> None:
    """Roll out a version of a model to these applications; returns once every replica has loaded it.

    If a replica rejects it, the previous champion is restored in the registry and in all applications.

    Args:
        scaled_to_zero: Applications of `hosts` that are updated without waiting for a replica.

    Raises PlatformError with the reason, Unavailable after `seconds`.
    """
    running = {spec.name: _running_version(spec) for spec in hosts}
    main = running if name not in running else {**running, name: version}
    plans = _plans(hosts, main, running)
    try:
        for spec in hosts:
            deploy(spec, plans[spec.name], swap_version)
            if spec not in scaled_to_zero:
                wait_for_replicas(spec, name, version, seconds, plans[spec.name].requested_at)
    except VersionRejected as error:
        kept = _demote(hosts, name, version, before or running.get(name, 0), running)
        fix = "the previous version is in service" if kept != version else "register the model again"
        raise PlatformError(f"{name}: {error}; version {kept} is champion", fix=fix) from None


def _running_version(spec: EndpointSpec) -> int:
    """Return the main version of an application; the champion if no replica runs, 0 without one."""
    found = next((status.versions.get(spec.name, 0) for status in replica_statuses(spec.name)), 0)
    champion = None if found else aliases.alias_target(spec.tracking, spec.name, tags.CHAMPION)
    return champion[0] if champion else found


def _plans(
    hosts: Sequence[EndpointSpec], main: Mapping[str, int], running: Mapping[str, int]
) -> dict[str, ReplicaPlan]:
    """Build the plans of all applications from one snapshot of the registry. main, running: versions by application."""
    with registry_snapshot(hosts[0].tracking) as registry:
        return {
            spec.name: build_plan(registry, spec, main[spec.name], running=running[spec.name], requested_at=time.time())
            for spec in hosts
        }


def _demote(hosts: Sequence[EndpointSpec], name: str, version: int, before: int, running: Mapping[str, int]) -> int:
    """Roll back to the previous champion and return the champion.

    If MLflow does not respond, the alias stays, and so does the version in service.
    """
    before = 0 if before == version else before
    try:
        kept = aliases.demote(hosts[0].tracking, name, version, before)
        main = running if name not in running else {**running, name: kept}
        restored = [spec for spec in hosts if main[spec.name]]
        if restored:
            plans = _plans(restored, main, running)
            for spec in restored:
                deploy(spec, plans[spec.name], swap_version)
    except RaypathError:
        return version
    return kept


def wait_for_replicas(
    spec: EndpointSpec, name: str, version: int, seconds: float, requested_at: float, pause: float = 0.2
) -> None:
    """Wait until every running replica of an application has loaded a version and the endpoint serves it.

    Args:
        requested_at: Of the rollout's plan; what a replica reports of an earlier plan is ignored.

    Raises VersionRejected, PlatformError with Serve's reason, Unavailable after `seconds`.
    """
    began, detail = time.monotonic(), ""
    while True:
        found = replica_statuses(spec.name, name if name != spec.name else "")
        for fault in (status.fault(name) for status in found if status.requested_at >= requested_at):
            if fault is not None and fault.version == version and fault.rejected:
                raise VersionRejected(fault.message())
            detail = f" ({fault.reason})" if fault is not None else detail
        complete = found and len(found) >= running_replicas(spec.name)
        if complete and all(s.requested_at >= requested_at and s.versions.get(name) == version for s in found):
            if name != spec.name or serves_version(spec.url, name, version):  # through the proxy, too
                return
        elif not found:
            health(spec.url)  # a request starts the first replica of an endpoint that is scaled to zero
        passed = time.monotonic() - began
        raise_if_failed(spec, passed)
        if passed > seconds:
            reason = f"{name} version {version} is not served at {spec.url} within {seconds:g} s{detail}"
            raise Unavailable(reason, fix="see `raypath status` and the logs of Ray Serve")
        time.sleep(pause)


def wait_for_version(url: str, tracking: str, name: str, version: int, seconds: float, pause: float = 1.0) -> float:
    """Wait until an endpoint that polls the registry serves a version; returns the seconds that it took.

    Raises PlatformError with the reason in the version's tag if a replica rejected it, Unavailable after `seconds`.
    """
    began = time.monotonic()
    while True:
        ready, passed = serves_version(url, name, version), time.monotonic() - began
        # Checked even if the endpoint serves the version: one replica may have rejected what another loaded.
        if reason := _rejection_reason(tracking, name, version):
            raise PlatformError(
                f"{name}: version {version} was rejected: {reason}", fix="the previous version is in service"
            )
        if ready:
            return passed
        if passed > seconds:
            raise Unavailable(
                f"{name} version {version} is not served at {url} within {seconds:g} s",
                fix="check its RayService: kubectl -n raypath get rayservices,pods",
            )
        time.sleep(pause)


def _rejection_reason(tracking: str, name: str, version: int) -> str:
    with contextlib.suppress(RaypathError):  # MLflow may be unavailable for a moment
        return aliases.rejection_reason(tracking, name, version)
    return ""


def raise_if_failed(spec: EndpointSpec, passed: float) -> None:
    """Raise PlatformError if waiting for an application is in vain. passed: seconds since it was deployed."""
    from ray import serve

    name = spec.name
    state = serve.status().applications.get(name)
    if state is not None and state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        messages = [state.message, *(deployment.message for deployment in state.deployments.values())]
        raise PlatformError(f"Ray Serve could not start {name}: {_reason(messages)}", fix="see the logs of Ray Serve")
    if passed > STALE_SECONDS and (found := health(spec.url)) is not None and found.get("name") not in (name, ""):
        raise PlatformError(f"another service responds at the URL of {name}", fix=ROUTE_FIX)


def _reason(messages: Sequence[str]) -> str:
    """Return the error line of a stack trace."""
    lines = [line.strip() for text in messages for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "Unavailable", "Exception"))]
    return ([*lines[:1], *errors] or ["no reason given"])[-1][:300]
