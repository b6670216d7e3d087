"""What every platform of Ray tasks has: steps as tasks, and the run's numbers carried to MLflow."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from raypath.components.core.context import Tracking
from raypath.components.core.errors import PlatformError, Unavailable
from raypath.deploy.execution.run_history import Run
from raypath.deploy.execution.step import Outcome, StepSpec, run_step

FLUSH = 10.0
"""Seconds that the end of a run waits for MLflow to take the last numbers; what is left is carried by the next run."""


class Tasks:
    """Each step is a Ray task that holds no resources of its own. Who derives from it says where Ray is."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._remote: Any = None
        self._record: ExitStack | None = None
        self._track: Any = None

    def tracking(self, experiment: str, run: str) -> Tracking:
        """Where numbers go; the server may be away, the spool does not mind."""
        return Tracking(uri=self.mlflow(), experiment=experiment, parent=run, spool=str(self.home / "spool"))

    def mlflow(self) -> str:
        """The address of the MLflow server, "" where there is none."""
        raise NotImplementedError

    def connected(self, function: Callable[[StepSpec], Outcome] = run_step) -> None:
        """Make ready to submit; this process has connected to Ray."""
        import ray

        # Ray's own handler of SIGTERM prints a native stack and ends the process; to stop is to be stopped by Ctrl-C.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
        # max_retries=0: what is worth trying again is decided by the runner, for every launcher alike.
        self._remote = ray.remote(num_cpus=0, max_retries=0)(function)

    def record(self, run: Run) -> None:
        """Open the run's own MLflow run and begin to carry numbers to the server; once."""
        if self._record is not None:
            return
        from raypath.components.tracking.run import track
        from raypath.components.tracking.uploader import Carrier

        tracking = self.tracking(run.workflow, run.id)
        self._record = ExitStack()
        carrier = Carrier(tracking)
        if tracking.uri:
            self._record.callback(carrier.stop, FLUSH)
        opened = track(tracking, name=run.id, kind="workflow", params=run.params, parent="", run_id=run.id)
        self._track = self._record.enter_context(opened)
        if tracking.uri:
            carrier.start()

    def note(self, figures: Mapping[str, float]) -> None:
        """Figures of the whole run, so that MLflow's list of runs can be sorted by them."""
        if self._track is not None:
            self._track.metrics(figures)

    def close(self) -> None:
        """End the run's MLflow run and let go of Ray, which stops what still runs for us."""
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
        return [(handle, outcome(handle)) for handle in ready]

    def cancel(self, handles: Collection[Any]) -> None:
        """Stop tasks with all that they started."""
        import ray

        for handle in handles:
            ray.cancel(handle, force=True, recursive=True)


def outcome(handle: Any) -> Outcome:
    """What a task returned; a worker or node that died counts as a fault of the infrastructure."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        found: Outcome = ray.get(handle)
    except RayTaskError as error:
        # run_step never raises, so the task could not even be begun (say, a module is not on the workers' path).
        return Outcome(error=PlatformError.__name__, what=line(error.cause), fix="see the Ray logs", trace=str(error))
    except RayError as error:
        what = f"the worker died ({line(error)})"
        return Outcome(error=Unavailable.__name__, what=what, fix="run the same line again", trace=str(error))
    return found


def line(error: BaseException) -> str:
    """An error in one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
