"""The platform of a laptop: steps run as Ray tasks on this home's own head, beside its own MLflow server."""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from components.core.context import Tracking
from components.core.errors import PlatformError, Unavailable
from deploy import local, services
from deploy.runs import Run
from deploy.services import Services
from deploy.step import Outcome, StepSpec, run_step

FLUSH = 10.0
"""Seconds that the end of a run waits for MLflow to take the last numbers; what is left is carried by the next run."""


class RayTasks:
    """Starts nothing until a step is to be run. Each step is a task that holds no resources of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._services: Services | None = None
        self._remote: Any = None
        self._record: ExitStack | None = None
        self._track: Any = None

    def tracking(self, experiment: str, run: str) -> Tracking:
        """Where numbers go; the server may still be starting, the spool does not mind."""
        known = self._services or services.read(self.home)
        uri = known.mlflow.address if known.mlflow else ""
        return Tracking(uri=uri, experiment=experiment, parent=run, spool=str(self.home / "spool"))

    def serve_url(self) -> str:
        """Where a local endpoint answers."""
        known = self._services or services.read(self.home)
        return f"http://127.0.0.1:{known.ray.serve_port}" if known.ray else ""

    def start(self) -> None:
        """Bring up Ray and, without waiting for it, MLflow."""
        if self._remote is not None:
            return
        import ray

        self._services = local.up(self.home, wait=False, dashboard=False)
        local.connect(self.home)
        # Ray's own handler of SIGTERM prints a native stack and ends the process; to stop is to be stopped by Ctrl-C.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
        # max_retries=0: what is worth trying again is decided by the runner, for every launcher alike.
        self._remote = ray.remote(num_cpus=0, max_retries=0)(run_step)

    def heal(self) -> None:
        """Start again what has died, and wait until it answers."""
        self._services = local.up(self.home, dashboard=False)
        local.connect(self.home)

    def record(self, run: Run) -> None:
        """Open the run's own MLflow run and begin to carry numbers to the server; once."""
        if self._record is not None:
            return
        from components.training.shipping import Carrier
        from components.training.tracking import track

        tracking = self.tracking(run.workflow, run.id)
        self._record = ExitStack()
        carrier = Carrier(tracking)
        self._record.callback(carrier.stop, FLUSH)
        opened = track(tracking, name=run.id, kind="workflow", params=run.params, parent="", run_id=run.id)
        self._track = self._record.enter_context(opened)
        carrier.start()

    def note(self, figures: Mapping[str, float]) -> None:
        """Figures of the whole run, so that MLflow's list of runs can be sorted by them."""
        if self._track is not None:
            self._track.metrics(figures)

    def close(self) -> None:
        """End the run's MLflow run and let go of Ray, which stops what still runs for us."""
        import sys

        if self._record is not None:
            self._record.__exit__(*sys.exc_info())
        if self._remote is not None:
            import ray

            ray.shutdown()

    def submit(self, spec: StepSpec) -> Any:
        """Begin a step as a Ray task."""
        return self._remote.options(name=f"step:{spec.step}").remote(spec)

    def poll(self, handles: Collection[Any], timeout: float) -> list[tuple[Any, Outcome]]:
        """Tasks that have ended."""
        import ray

        ready, _ = ray.wait(list(handles), num_returns=1, timeout=timeout)
        return [(handle, self._outcome(handle)) for handle in ready]

    def cancel(self, handles: Collection[Any]) -> None:
        """Stop tasks with all that they started."""
        import ray

        for handle in handles:
            ray.cancel(handle, force=True, recursive=True)

    def _outcome(self, handle: Any) -> Outcome:
        """What a task returned; a worker or node that died counts as a fault of the infrastructure."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            found: Outcome = ray.get(handle)
        except RayTaskError as error:
            # run_step never raises, so the task could not even be begun (say, a module is not on the workers' path).
            return Outcome(
                error=PlatformError.__name__, what=_line(error.cause), fix="see the Ray logs", trace=str(error)
            )
        except RayError as error:
            what = f"the worker died ({_line(error)})"
            return Outcome(error=Unavailable.__name__, what=what, fix="run the same line again", trace=str(error))
        return found


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
