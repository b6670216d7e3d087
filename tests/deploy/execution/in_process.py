"""A platform that runs steps in this process, and a view that shows nothing."""

from collections.abc import Collection, Mapping
from typing import Any

from raypath.components.core.context import Tracking
from raypath.deploy.execution.run_history import Run, StepState
from raypath.deploy.execution.step import Outcome, StepSpec, run_step


class Here:
    """A platform that runs steps in this process, so that their faults can be chosen."""

    def __init__(self) -> None:
        self.started = 0
        self.tracked: list[str] = []
        self.healed = 0

    def tracking(self, experiment: str, run: str) -> Tracking:
        return Tracking()

    def public_url(self) -> str:
        return ""

    def serve_url(self) -> str:
        return ""

    def start(self) -> None:
        self.started += 1

    def start_tracking(self, run: Run) -> None:
        self.tracked.append(run.id)

    def log_step(self, state: StepState) -> None: ...

    def log_description(self, run: Run, defaults: Mapping[str, Any]) -> None: ...

    def heal(self) -> None:
        self.healed += 1

    def submit(self, spec: StepSpec) -> StepSpec:
        return Handle(spec)  # type: ignore[return-value]

    def poll(self, handles: Collection[Any], timeout: float) -> list[tuple[Any, Outcome]]:
        return [(handle, run_step(handle.spec)) for handle in handles]

    def cancel(self, handles: Collection[Any]) -> None:
        return


class Handle:
    """A step that was begun."""

    def __init__(self, spec: StepSpec) -> None:
        self.spec = spec


class Nobody:
    """Looks on, says nothing."""

    def update(self, run: Run) -> None:
        return
