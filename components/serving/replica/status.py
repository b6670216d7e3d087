"""What a replica says of itself: little to whoever asks over HTTP, all of it to who may ask through Ray."""

from __future__ import annotations

from pydantic import BaseModel

from raypath.components.serving.model_versions import OTHER, LoadFault
from raypath.components.serving.replica.model_manager import ModelManager
from raypath.components.serving.replica.shadow import ShadowComparison


class ReplicaStatus(BaseModel):
    """One replica. It holds reasons, which may name addresses and paths: not for clients."""

    name: str
    asked: float
    """Of the ReplicaPlan that it was given last, and has tried."""
    versions: dict[str, int]
    """Version in service by model; a model that was never asked for is not in it."""
    faults: dict[str, LoadFault]
    """By role: main, canary, shadow, `model NAME`."""
    canary: str = ""
    shadow: str = ""
    requests: float = 0.0
    """Answered a second, lately."""

    def fault(self, name: str) -> LoadFault | None:
        """Why a model is not in the version that was asked for."""
        return self.faults.get("main" if name == self.name else OTHER + name)


def replica_status(versions: ModelManager, compared: ShadowComparison | None, requests: float = 0.0) -> ReplicaStatus:
    """The state of a replica that has a model in service."""
    plan, main = versions.plan, versions.main
    assert plan is not None
    assert main is not None
    state = ReplicaStatus(
        name=main.name,
        asked=plan.asked,
        versions={main.name: main.version, **{name: one.version for name, one in versions.others.held.items()}},
        faults=versions.faults,
        requests=requests,
    )
    if plan.canary:
        state.canary = f"version {plan.canary.version} answers {plan.percent:g}% of requests"
    if plan.shadow and compared:
        state.shadow = compared.told()
    for role in ("canary", "shadow"):
        if fault := versions.faults.get(role):
            setattr(state, role, fault.message())
        elif getattr(versions, role) is None:
            setattr(state, role, "")
    return state


def health_status(versions: ModelManager) -> str:
    """What /healthz tells without a key: `ok`, or which version is not in service, without the reason."""
    told = []
    for role, fault in versions.faults.items():
        what = "was rejected" if fault.rejected else "could not be fetched yet"
        told.append(f"{'' if role == 'main' else f'{role} '}version {fault.version} {what}")
    return f"degraded: {', '.join(told)}" if told else "ok"


ANSWER = 5.0
"""Seconds in which a replica has to tell its state."""


UP = ("RUNNING", "UPDATING")
"""Replicas that answer requests, in Serve's words."""


def running_replicas(application: str) -> int:
    """How many replicas answer now; asks Serve, and wakes none."""
    from ray import serve

    found = serve.status().applications.get(application)
    deployments = found.deployments.values() if found else ()
    return sum(number for each in deployments for state, number in each.replica_states.items() if state in UP)


def is_deployed(application: str) -> bool:
    """Whether Serve has such an application, be it without a replica."""
    from ray import serve

    return application in serve.status().applications


def replica_statuses(application: str, model: str = "", seconds: float = ANSWER) -> list[ReplicaStatus]:
    """What each running replica says of itself; a replica that does not answer in time is left out. Wakes none.

    model: one that each is to load first, if it only has it among others.
    """
    from ray import serve
    from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

    if not running_replicas(application):
        return []
    try:
        handle = serve.get_app_handle(application)
        told = handle.broadcast("state", model).results(timeout_s=seconds, return_exceptions=True)
    except (TimeoutError, DeploymentUnavailableError, RayServeException):
        return []
    return [ReplicaStatus(**each) for each in told if isinstance(each, dict)]


def is_scaled_to_zero(application: str) -> bool:
    """Whether an application that Serve has runs no replica, and starts none."""
    from ray import serve

    found = serve.status().applications[application].deployments.values()
    return bool(found) and not any(
        number for each in found for state, number in each.replica_states.items() if state != "STOPPING"
    )
