"""Base of the platforms that run steps as Ray tasks; uploads the run's metrics to MLflow meanwhile."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from raypath.components.core.context import Tracking
from raypath.components.core.errors import PlatformError, Unavailable
from raypath.components.data.streaming.ray_errors import out_of_memory, unwrap, worker_died
from raypath.components.tracking.tags import NOTE
from raypath.deploy.execution.mlflow_run import dataset_of, describe, metrics_of, run_name, source_tags
from raypath.deploy.execution.run_history import Run, StepState, StepStatus
from raypath.deploy.execution.step import Outcome, StepSpec, first_line, run_step

FLUSH = 10.0
"""Seconds that the end of a run waits for MLflow to accept the last metrics; the next run uploads what is left."""


class RayTaskPlatform:
    """Platform on which each step is a Ray task that reserves no resources. Subclasses connect to Ray."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._remote: Any = None
        self._tracking: ExitStack | None = None
        self._has_data = False
        """The workflow's run in MLflow has its dataset."""
        self._track: Any = None
        self.worker_environment: dict[str, str] = {}
        """Variables of the processes of steps, and of all that these start, in addition to those of the cluster."""

    def tracking(self, experiment: str, run: str) -> Tracking:
        """Return the destination of metrics. The server may be down: points wait in the spool."""
        return Tracking(uri=self.mlflow(), experiment=experiment, parent=run, spool=str(self.home / "spool"))

    def mlflow(self) -> str:
        """Return the URL of the MLflow server, "" when there is none."""
        raise NotImplementedError

    def connected(self, function: Callable[[StepSpec], Outcome] = run_step) -> None:
        """Prepare to submit steps; the subclass has connected this process to Ray."""
        import ray

        # Ray's own SIGTERM handler prints a native stack and ends the process; SIGTERM is to act like Ctrl-C.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
        # max_retries=0: the runner decides about retries, for every launcher alike.
        self._remote = ray.remote(num_cpus=0, max_retries=0)(function)

    def start_tracking(self, run: Run) -> None:
        """Open the MLflow run of the workflow and start uploading metrics; once."""
        if self._tracking is not None:
            return
        from raypath.components.tracking.run import end_runs, track
        from raypath.components.tracking.uploader import UploadThread

        tracking = self.tracking(run.workflow, run.id)
        self._tracking = ExitStack()
        upload = UploadThread(tracking)
        if tracking.uri:
            self._tracking.callback(upload.stop, FLUSH)
        # Steps whose processes were killed, and those that are stopped with this process, do not end theirs.
        self._tracking.callback(end_runs, tracking, run.started, "KILLED")
        name, tags = run_name(run), source_tags(run)
        opened = track(tracking, name=name, kind="workflow", params=run.params, tags=tags, parent="", run_id=run.id)
        self._track = self._tracking.enter_context(opened)
        for state in run.steps:
            if state.status is StepStatus.REUSED:
                self.log_step(state)
        if tracking.uri:
            upload.start()

    def log_step(self, state: StepState) -> None:
        """Log a step's metrics and data to the workflow's run, by which MLflow's list of runs can be sorted."""
        if self._track is None:
            return
        self._track.metrics(metrics_of(state))
        # The first step with rows reads them; later ones have the same source.
        if not self._has_data and (data := dataset_of(state)):
            self._has_data = True
            self._track.dataset(**data)

    def log_description(self, run: Run, defaults: Mapping[str, Any]) -> None:
        """Write the description of the workflow's run. defaults: the workflow's, by dotted key."""
        if self._track is not None:
            self._track.tags({NOTE: describe(run, defaults)})

    def close(self) -> None:
        """End the MLflow run and disconnect from Ray, which stops the tasks that still run for this process."""
        if self._tracking is not None:
            self._tracking.__exit__(*sys.exc_info())
        if self._remote is not None:
            import ray

            ray.shutdown()

    def submit(self, spec: StepSpec) -> Any:
        """Start a step as a Ray task."""
        # Only where needed: Ray starts new processes for another environment.
        more = {"runtime_env": {"env_vars": self.worker_environment}} if self.worker_environment else {}
        return self._remote.options(name=f"step:{spec.step}", **more).remote(spec)

    def poll(self, handles: Collection[Any], timeout: float) -> list[tuple[Any, Outcome]]:
        """Return the tasks that have ended."""
        import ray

        ready, _ = ray.wait(list(handles), num_returns=1, timeout=timeout)
        return [(handle, outcome(handle)) for handle in ready]

    def cancel(self, handles: Collection[Any]) -> None:
        """Stop tasks with everything that they started."""
        import ray

        for handle in handles:
            ray.cancel(handle, force=True, recursive=True)


def outcome(handle: Any) -> Outcome:
    """Return a task's outcome. The death of a worker or node is an infrastructure failure, which is retried."""
    import ray
    from ray.exceptions import RayError

    try:
        found: Outcome = ray.get(handle)
    except RayError as error:
        if worker_died(error):
            what = f"the worker died ({out_of_memory(str(error)) or first_line(error)})"
            fix = "run the same command again"
            return Outcome(error=Unavailable.__name__, what=what, fix=fix, trace=str(error))
        # run_step never raises, so the task could not be started, e.g. a module is missing on the workers' path.
        what = first_line(unwrap(error))
        return Outcome(error=PlatformError.__name__, what=what, fix="see the Ray logs", trace=str(error))
    return found
