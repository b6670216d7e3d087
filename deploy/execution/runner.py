"""Execute a workflow graph: reuse cached steps, run the others in parallel as Ray tasks, retry infrastructure failures.

Re-running a workflow resumes it. A run whose steps are all cached starts no service.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from raypath.components.core.artifacts import Artifact
from raypath.components.core.context import Context, Tracking
from raypath.components.core.errors import RaypathError, StepFailed, StoreError, Unavailable, kinds
from raypath.components.core.files import is_disk_full
from raypath.components.core.graph import Graph, Node
from raypath.components.data.sources.retry import backoff
from raypath.components.models.process import cpu_count, gpu_count
from raypath.deploy.execution.cache_key import (
    cache_key_inputs,
    compute_key,
    explain_change,
    resolve,
    settings_digest,
)
from raypath.deploy.execution.progress import progress_file
from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus, begin, end, last_key_inputs
from raypath.deploy.execution.step import FREE_SPACE_HINT, Outcome, StepSpec, liveness_context
from raypath.deploy.store.retention import enforce
from raypath.deploy.store.store import Store

MIN_FREE = 1 << 30
"""Bytes of free disk space below which no step is started."""
RETRIES = 4
"""Retries of a step after an infrastructure failure, with waits of 1, 2, 4 and 8 seconds."""
POLL = 0.2
"""Seconds between polls of running steps."""
log = logging.getLogger("raypath.runner")


class Platform(Protocol):
    """Interface to the machine or cluster that runs the steps; implemented by launchers."""

    def tracking(self, experiment: str, run: str) -> Tracking: ...
    def serve_url(self) -> str: ...
    def public_url(self) -> str: ...
    def start(self) -> None:
        """Start the services that steps need; does nothing when they are up."""
        ...

    def start_tracking(self, run: Run) -> None:
        """Open the run in MLflow; does nothing the second time."""
        ...

    def log_step(self, state: StepState) -> None:
        """Log a step's metrics and data to the workflow's run."""
        ...

    def log_description(self, run: Run, defaults: Mapping[str, Any]) -> None:
        """Describe the run in MLflow. defaults: the workflow's settings, by dotted key."""
        ...

    def heal(self) -> None:
        """Restart services that have died."""
        ...

    def submit(self, spec: StepSpec) -> Any:
        """Start a step; returns a handle."""
        ...

    def poll(self, handles: Collection[Any], timeout: float) -> list[tuple[Any, Outcome]]:
        """Return the handles that ended within `timeout` seconds, with their outcomes."""
        ...

    def cancel(self, handles: Collection[Any]) -> None: ...


class RunObserver(Protocol):
    """Receiver of state changes of a run, such as the live view."""

    def update(self, run: Run) -> None: ...


class Runner:
    """One run of one graph."""

    def __init__(self, graph: Graph, store: Store, platform: Platform, observer: RunObserver, run_id: str = "") -> None:
        self.graph = graph
        self.store = store
        self.platform = platform
        self.observer = observer
        self.done: dict[str, Artifact] = {}
        self.before = last_key_inputs(store.home, graph.workflow)
        names = [node.name for node in graph.nodes]
        self.run = begin(store.home, graph.workflow, settings_digest(graph), graph.params.flat(), names, run_id)
        self._running: dict[Any, Node] = {}
        self._delayed: list[tuple[float, Node]] = []

    def execute(self, fresh: Collection[str] = ()) -> Artifact:
        """Run what is not cached and return the workflow's result.

        Raises the error of the first step that failed, StoreError if the history of the run cannot be written.
        """
        try:
            return self._execute(fresh)
        except OSError as error:
            if is_disk_full(error):
                raise StoreError(f"the disk of {self.store.home} is full", fix=FREE_SPACE_HINT) from None
            raise

    def _execute(self, fresh: Collection[str]) -> Artifact:
        waiting = list(self.graph.nodes)
        try:
            while waiting or self._running or self._delayed:
                waiting = self._advance(waiting, fresh)
                self._collect()
                self._notify()
            self._finish(RunStatus.DONE)
            enforce(self.store)
        except RaypathError:
            self._finish(RunStatus.FAILED)
            raise
        except BaseException:
            self._finish(RunStatus.STOPPED)
            raise
        return resolve(self.graph.result, self.done)

    def _advance(self, waiting: list[Node], fresh: Collection[str]) -> list[Node]:
        """Reuse or start every step whose inputs are done; returns the steps that still wait."""
        progress = True
        while progress:
            progress = False
            for node in list(waiting):
                if all(ref.step in self.done for ref in node.inputs):
                    waiting.remove(node)
                    progress = self._reuse_or_start(node, node.name in fresh) or progress
        now = time.time()
        due = [node for at, node in self._delayed if at <= now]
        self._delayed = [(at, node) for at, node in self._delayed if at > now]
        for node in due:
            self._start(node)
        return waiting

    def _reuse_or_start(self, node: Node, fresh: bool) -> bool:
        """Reuse a step's record, or start the step. Returns True when it was reused."""
        state = self.run.step(node.name)
        state.key_inputs = cache_key_inputs(node, self.graph, self.done)
        state.key = compute_key(state.key_inputs)
        if fresh:
            self.store.forget(state.key)
        record = self.store.record(state.key)
        if record is None:
            before = self.before.get(node.name)
            state.reason = "asked for with --fresh" if fresh else explain_change(state.key_inputs, before)
        else:
            artifact = node.component.output.model_validate_json(json.dumps(record.artifact))
            if self._still_exists(node, artifact):
                state.status, state.reason, state.artifact = StepStatus.REUSED, "nothing changed", record.artifact
                self.done[node.name] = artifact
                self.platform.log_step(state)
                return True
            self.store.forget(state.key)
            state.reason = "what it made no longer exists"
        self._start(node)
        return False

    def _still_exists(self, node: Node, artifact: Artifact) -> bool:
        """Check what a step made outside the store, such as an endpoint; starts its service when it is unavailable."""
        if node.component.alive is None:
            return True
        try:
            return node.component.alive(self._liveness_context(node), artifact)
        except Unavailable:
            self.platform.start()
            self.platform.heal()
            return node.component.alive(self._liveness_context(node), artifact)

    def _liveness_context(self, node: Node) -> Context:
        return liveness_context(node.name, self.store.home, self._tracking(), self.platform.serve_url())

    def _tracking(self) -> Tracking:
        return self.platform.tracking(self.graph.workflow, self.run.id)

    def _start(self, node: Node) -> None:
        free = self.store.free_bytes()
        if free < MIN_FREE:
            got = f"the disk of {self.store.home} has {free >> 20} MiB free; wanted at least {MIN_FREE >> 20} MiB"
            fix = "free disk space or set RAYPATH_HOME, then run the same command again"
            raise StoreError(got, fix=fix, step=node.name)
        self._notify()
        self.platform.start()
        self.platform.start_tracking(self.run)
        state = self.run.step(node.name)
        state.status, state.started, state.attempts = StepStatus.RUNNING, time.time(), state.attempts + 1
        progress_file(self.store.home, state.key).unlink(missing_ok=True)
        self._running[self.platform.submit(self._spec(node))] = node
        self.run.save(self.store.home)

    def _spec(self, node: Node) -> StepSpec:
        return StepSpec.of(
            node,
            self.graph,
            self.done,
            self.store,
            self._tracking(),
            run=self.run.id,
            workers=cpu_count(),
            gpus=gpu_count(),
            key_inputs=self.run.step(node.name).key_inputs,
            serve_url=self.platform.serve_url(),
            public_url=self.platform.public_url(),
        )

    def _collect(self) -> None:
        if not self._running:
            if self._delayed:
                time.sleep(POLL)
            return
        for handle, outcome in self.platform.poll(list(self._running), POLL):
            node = self._running.pop(handle)
            self._process(node, outcome)

    def _process(self, node: Node, outcome: Outcome) -> None:
        """Keep a step's artifact, schedule a retry after an infrastructure failure, or raise the step's error."""
        state = self.run.step(node.name)
        state.seconds = time.time() - state.started
        state.warnings, state.notes = list(outcome.warnings), list(outcome.notes)
        if outcome.artifact is not None:
            state.status, state.artifact = StepStatus.DONE, outcome.artifact
            self.done[node.name] = node.component.output.model_validate_json(json.dumps(outcome.artifact))
            self.platform.log_step(state)
            self.run.save(self.store.home)
            return
        log.debug("step %s failed\n%s", node.name, outcome.trace)
        if kinds().get(outcome.error, StepFailed).retry and state.attempts <= RETRIES:
            wait = backoff(state.attempts - 1)
            state.status, state.reason = StepStatus.WAITING, f"{outcome.what}; trying again in {wait:.0f} s"
            self._notify()
            self.platform.heal()
            self._delayed.append((time.time() + wait, node))
            return
        state.status, state.error = StepStatus.FAILED, f"{outcome.what}; {outcome.fix}"
        outcome.raise_error(node.name)

    def _finish(self, status: RunStatus) -> None:
        if self._running:
            self.platform.cancel(list(self._running))
        for state in self.run.steps:
            if state.status is StepStatus.RUNNING:
                state.status = StepStatus.STOPPED
        try:
            end(self.store.home, self.run, status, time.time())
        except OSError as error:
            if not is_disk_full(error):
                raise
            # The error of a step is not to be replaced by one that follows from the same full disk.
            log.warning("the end of run %s was not recorded: the disk of %s is full", self.run.id, self.store.home)
        self.platform.log_description(self.run, type(self.graph.params)().flat())
        self._notify()

    def _notify(self) -> None:
        self.observer.update(self.run)
