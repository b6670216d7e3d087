"""What a replica says of itself: little to whoever asks over HTTP, all of it to who may ask through Ray."""

from __future__ import annotations

from pydantic import BaseModel

from raypath.components.serving.replica.model_manager import OTHER, Fault, Versions
from raypath.components.serving.replica.shadow import Compared


class State(BaseModel):
    """One replica. It holds reasons, which may name addresses and paths: not for clients."""

    name: str
    asked: float
    """Of the Plan that it was given last, and has tried."""
    versions: dict[str, int]
    """Version in service by model; a model that was never asked for is not in it."""
    faults: dict[str, Fault]
    """By role: main, canary, shadow, `model NAME`."""
    canary: str = ""
    shadow: str = ""
    requests: float = 0.0
    """Answered a second, lately."""

    def fault(self, name: str) -> Fault | None:
        """Why a model is not in the version that was asked for."""
        return self.faults.get("main" if name == self.name else OTHER + name)


def state_of(versions: Versions, compared: Compared | None, requests: float = 0.0) -> State:
    """The state of a replica that has a model in service."""
    plan, main = versions.plan, versions.main
    assert plan is not None
    assert main is not None
    state = State(
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
            setattr(state, role, fault.told())
        elif getattr(versions, role) is None:
            setattr(state, role, "")
    return state


def status_of(versions: Versions) -> str:
    """What /healthz tells without a key: `ok`, or which version is not in service, without the reason."""
    told = []
    for role, fault in versions.faults.items():
        what = "was refused" if fault.refused else "could not be fetched yet"
        told.append(f"{'' if role == 'main' else f'{role} '}version {fault.version} {what}")
    return f"degraded: {', '.join(told)}" if told else "ok"
