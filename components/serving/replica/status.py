"""Replica status: brief over HTTP for clients, complete through Ray for operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from raypath.components.serving.model_versions import LoadFault, Role

if TYPE_CHECKING:
    from raypath.components.serving.live.live_test import LiveTest
    from raypath.components.serving.replica.model_manager import ModelManager
    from raypath.components.serving.replica.shadow import ShadowComparison

STATUS_SECONDS = 5.0
"""Seconds in which a replica has to report its status."""
UP = ("RUNNING", "UPDATING")
"""Serve's states of a replica that takes requests."""


class ReplicaStatus(BaseModel):
    """Status of one replica. Its reasons may name URLs and paths, so it is not for clients."""

    name: str
    requested_at: float
    """`requested_at` of the last plan that the replica applied."""
    versions: dict[str, int]
    """Loaded version by model; a model that was never requested is missing."""
    faults: dict[Role, LoadFault] = {}
    """Faults of the main model's versions."""
    model_faults: dict[str, LoadFault] = {}
    """Faults of additional models, by name."""
    canary: str = ""
    shadow: str = ""
    requests: float = 0.0
    """Requests per second over the last seconds."""
    live_requests: int = 0
    """Requests of all replicas that count for the live test of its canary or shadow, as of its last look."""

    def fault(self, name: str) -> LoadFault | None:
        """Return the fault of a model's planned version."""
        return self.faults.get(Role.MAIN) if name == self.name else self.model_faults.get(name)

    def fault_messages(self) -> list[tuple[str, str]]:
        """Return the label and the message of each fault."""
        return [(label, fault.message()) for label, fault in _labelled(self.faults, self.model_faults)]


def replica_status(
    models: ModelManager[Any], compared: ShadowComparison | None, requests: float = 0.0, live: LiveTest | None = None
) -> ReplicaStatus:
    """Return the status of a replica whose main model is loaded."""
    plan, main = models.plan, models.main
    assert plan is not None
    assert main is not None
    roles = {
        Role.CANARY: f"version {plan.canary.version} serves {plan.canary_percent:g}% of requests"
        if plan.canary
        else "",
        Role.SHADOW: compared.summary() if plan.shadow and compared else "",
    }
    if live is not None:
        roles |= _live_lines(live, roles)
    lines = {}
    for role, line in roles.items():
        fault = models.faults.get(role)
        lines[role.value] = fault.message() if fault else line if role in models.active else ""
    return ReplicaStatus(
        name=main.name,
        requested_at=plan.requested_at,
        versions={main.name: main.version, **{name: each.version for name, each in models.pool.loaded.items()}},
        faults=models.faults,
        model_faults=models.model_faults,
        requests=requests,
        live_requests=live.requests if live is not None else 0,
        **lines,
    )


def _live_lines(live: LiveTest, roles: Mapping[Role, str]) -> dict[Role, str]:
    """Return the line of the role that live requests decide on, with their progress."""
    role, text = live.status()
    if role is None:
        return {}
    if live.trial is None:
        return {role: f"{roles[role]}; {text}"}
    line = f"version {live.trial.version}" if role == Role.SHADOW else roles[role]
    return {role: f"{line}: {text}"}


def health_status(models: ModelManager[Any], sees: Callable[[str], bool] = lambda name: True) -> str:
    """Return the status for /healthz: `ok`, or which versions are not in service, without the reasons.

    sees: Tells which models exist for the client.
    """
    lines = []
    for label, fault in _labelled(models.faults, models.model_faults):
        if not sees(fault.name) and label not in models.faults:
            continue
        outcome = "was rejected" if fault.rejected else "could not be fetched yet"
        lines.append(f"{'' if label == Role.MAIN else f'{label} '}version {fault.version} {outcome}")
    return f"degraded: {', '.join(lines)}" if lines else "ok"


def _labelled(faults: Mapping[Role, LoadFault], model_faults: Mapping[str, LoadFault]) -> list[tuple[str, LoadFault]]:
    return [
        *((role.value, f) for role, f in faults.items()),
        *((f"model {name}", f) for name, f in model_faults.items()),
    ]


def running_replicas(application: str) -> int:
    """Return the number of replicas that take requests, from Serve's controller; starts none."""
    from ray import serve

    found = serve.status().applications.get(application)
    deployments = found.deployments.values() if found else ()
    return sum(number for each in deployments for state, number in each.replica_states.items() if state in UP)


def is_deployed(application: str) -> bool:
    """Return True if Serve has such an application, with or without replicas."""
    from ray import serve

    return application in serve.status().applications


def is_scaled_to_zero(application: str) -> bool:
    """Return True if an application of Serve is healthy, has no replica and starts none.

    One whose replicas failed has none either; requests to it get 503.
    """
    from ray import serve

    overview = serve.status().applications[application]
    found = overview.deployments.values()
    return (
        overview.status == "RUNNING"
        and bool(found)
        and not any(number for each in found for state, number in each.replica_states.items() if state != "STOPPING")
    )


def replica_statuses(application: str, model: str = "", seconds: float = STATUS_SECONDS) -> list[ReplicaStatus]:
    """Query the status of each running replica; one that does not respond in time is left out. Starts no replica.

    model: an additional model that each replica loads first.
    """
    from ray import serve
    from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

    def query() -> list[object]:
        handle = serve.get_app_handle(application)
        return list(handle.broadcast("status", model).results(timeout_s=seconds, return_exceptions=True))

    if not running_replicas(application):
        return []
    try:
        # Serve refuses to wait in a thread with an event loop, such as that of a notebook.
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(query).result()
    except (TimeoutError, DeploymentUnavailableError, RayServeException):
        return []
    return [ReplicaStatus(**each) for each in found if isinstance(each, dict)]
