"""A version put in service: told to the replicas, waited for until every one has it, taken back if one refuses it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raypath.components.core.errors import PlatformError, RaypathError, Unavailable, UserError
from raypath.components.registry import aliases as refused
from raypath.components.registry import client as registry
from raypath.components.serving.control import deployer as deploy

if TYPE_CHECKING:
    from raypath.components.serving.replica.status import State
    from raypath.components.serving.spec import Spec

ANSWER = 5.0
"""Seconds in which a replica has to tell its state."""
UP = ("RUNNING", "UPDATING")
"""Replicas that answer requests, in Serve's words."""


class Refused(Exception):
    """A replica did not take a version; the reason is its text. It never crosses a process."""


def running(application: str) -> int:
    """How many replicas answer now; asks Serve, and wakes none."""
    from ray import serve

    found = serve.status().applications.get(application)
    deployments = found.deployments.values() if found else ()
    return sum(number for each in deployments for state, number in each.replica_states.items() if state in UP)


def known(application: str) -> bool:
    """Whether Serve has such an application, be it without a replica."""
    from ray import serve

    return application in serve.status().applications


def states(application: str, model: str = "", seconds: float = ANSWER) -> list[State]:
    """What each running replica says of itself; a replica that does not answer in time is left out. Wakes none.

    model: one that each is to load first, if it only has it among others.
    """
    from ray import serve
    from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

    from raypath.components.serving.replica.status import State

    if not running(application):
        return []
    try:
        handle = serve.get_app_handle(application)
        told = handle.broadcast("state", model).results(timeout_s=seconds, return_exceptions=True)
    except (TimeoutError, DeploymentUnavailableError, RayServeException):
        return []
    return [State(**each) for each in told if isinstance(each, dict)]


def asleep(application: str) -> bool:
    """Whether an application that Serve has runs no replica, and starts none."""
    from ray import serve

    found = serve.status().applications[application].deployments.values()
    return bool(found) and not any(
        number for each in found for state, number in each.replica_states.items() if state != "STOPPING"
    )


def swap(name: str, version: int, seconds: float = 120.0, before: int = 0) -> bool:
    """Serve another version of a model that is in service, as it is served now; returns once every replica has it.

    A service that has the model among others is told too. One that sleeps is left asleep: the replica that the next
    request starts has the version, or refuses it. before: version that gets the alias back where one refuses. Returns
    whether a replica has it. Raises UserError when no such model is in service, and what `put` raises. Ray has to be
    connected.
    """
    hosts = [spec for spec in specs() if name == spec.name or name in spec.also]
    if not hosts:
        raise UserError(f"no model {name} is in service", fix="run a workflow that serves it")
    sleeping = [spec for spec in hosts if asleep(spec.name)]
    put(hosts, name, version, seconds, before, sleeping)
    return len(sleeping) < len(hosts)


def specs() -> list[Spec]:
    """Of all applications that `deploy` put up and that Serve has; asks no replica."""
    from ray import serve

    gone = ("DEPLOY_FAILED", "DELETING")
    found = serve.status().applications.items()
    there = (deploy.spec_of(name) for name, each in found if each.status not in gone or running(name))
    return [spec for spec in there if spec is not None]


def put(
    hosts: Sequence[Spec], name: str, version: int, seconds: float, before: int = 0, sleeping: Sequence[Spec] = ()
) -> None:
    """Put a version of a model in service in these applications; returns once every replica has it.

    Where one refuses it, the champion before takes its place again, in the registry and in all of `hosts`. sleeping:
    those of them that are told and not waited for. Raises PlatformError with the reason, Unavailable after `seconds`.
    """
    now = {spec.name: _main(spec) for spec in hosts}
    try:
        for spec in hosts:
            asked = deploy.deploy(spec, version if spec.name == name else now[spec.name])
            if spec not in sleeping:
                wait(spec, name, version, seconds, asked)
    except Refused as error:
        kept = _back(hosts, name, version, before or now.get(name, 0), now)
        fix = "the version before is in service" if kept != version else "register the model again"
        raise PlatformError(f"{name}: {error}; version {kept} is champion", fix=fix) from None


def _main(spec: Spec) -> int:
    """The main version of an application in service; where none runs the champion, 0 without one."""
    found = next((state.versions.get(spec.name, 0) for state in states(spec.name)), 0)
    champion = None if found else registry.held_by(spec.tracking, spec.name, registry.CHAMPION)
    return champion[0] if champion else found


def _back(hosts: Sequence[Spec], name: str, version: int, before: int, now: dict[str, int]) -> int:
    """Undo; returns the champion. Where MLflow does not answer the alias stays, and the old version in service."""
    before = 0 if before == version else before
    try:
        kept = refused.withdraw(hosts[0].tracking, name, version, before)
        for spec in hosts:
            if main := kept if spec.name == name else now[spec.name]:
                deploy.deploy(spec, main)
    except RaypathError:
        return version
    return kept


def wait(spec: Spec, name: str, version: int, seconds: float, asked: float, pause: float = 0.2) -> None:
    """Until every running replica of an application has this version of a model, and the endpoint answers.

    asked: of the Plan that says so; what a replica says of an earlier one does not count. Raises Refused,
    PlatformError with Serve's reason, Unavailable after `seconds`.
    """
    began, told = time.monotonic(), ""
    while True:
        found = states(spec.name, name if name != spec.name else "")
        for fault in (state.fault(name) for state in found if state.asked >= asked):
            if fault is not None and fault.version == version and fault.refused:
                raise Refused(fault.told())
            told = f" ({fault.what})" if fault is not None else told
        whole = found and len(found) >= running(spec.name)
        if whole and all(state.asked >= asked and state.versions.get(name) == version for state in found):
            if name != spec.name or deploy.answers_as(spec.url, name, version):  # through the proxy, too
                return
        elif not found:
            deploy.health(spec.url)  # which wakes a first replica where none runs
        passed = time.monotonic() - began
        deploy.check_failed(spec, passed)
        if passed > seconds:
            what = f"{name} version {version} did not answer at {spec.url} within {seconds:g} s{told}"
            raise Unavailable(what, fix="look at `raypath status` and at the logs of Ray Serve")
        time.sleep(pause)
