"""Run a graph: reuse what is committed, run the rest as Ray tasks side by side, try again when the ground shook.

Running again *is* resuming. A run that needs nothing starts nothing.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from raypath.components.core.artifacts import Artifact
from raypath.components.core.context import Context, Tracking
from raypath.components.core.errors import RaypathError, StepFailed, StoreError, Unavailable, kinds
from raypath.components.core.graph import Graph, Node
from raypath.components.core.params import Params
from raypath.deploy.execution.cache_key import arguments_of, ingredients, key_of, plan_of, why
from raypath.deploy.execution.run_history import Run, begin, last_ingredients
from raypath.deploy.execution.step import Outcome, StepSpec, machine, progress_file
from raypath.deploy.store.store import Store

MIN_FREE = 1 << 30
"""Bytes of room without which no step is begun."""
RETRIES = 4
"""Times a step is tried again after a fault of the infrastructure, waiting 1, 2, 4 and 8 seconds."""
POLL = 0.2
"""Seconds between two looks at running steps."""
log = logging.getLogger("raypath.runner")


class Platform(Protocol):
    """Where steps run: made by a launcher."""

    def tracking(self, experiment: str, run: str) -> Tracking: ...
    def serve_url(self) -> str: ...
    def public_url(self) -> str: ...
    def start(self) -> None:
        """Bring up what running a step needs; nothing when it is up."""
        ...

    def record(self, run: Run) -> None:
        """Begin to note the run where runs are tracked; nothing the second time."""
        ...

    def note(self, figures: Mapping[str, float]) -> None:
        """Note figures of the whole run."""
        ...

    def heal(self) -> None:
        """Bring back what has died."""
        ...

    def submit(self, spec: StepSpec) -> Any:
        """Begin a step; returns a handle."""
        ...

    def poll(self, handles: Collection[Any], timeout: float) -> list[tuple[Any, Outcome]]:
        """The handles that have ended within `timeout` seconds, with what came of them."""
        ...

    def cancel(self, handles: Collection[Any]) -> None: ...


class Watcher(Protocol):
    """Who looks on: the live view, or nobody."""

    def update(self, run: Run) -> None: ...


class Runner:
    """One run of one graph."""

    def __init__(self, graph: Graph, store: Store, platform: Platform, watcher: Watcher, run_id: str = "") -> None:
        self.graph = graph
        self.store = store
        self.platform = platform
        self.watcher = watcher
        self.done: dict[str, Artifact] = {}
        self.before = last_ingredients(store.home, graph.workflow)
        names = [node.name for node in graph.nodes]
        self.run = begin(store.home, graph.workflow, plan_of(graph), graph.params.flat(), names, run_id)
        self._running: dict[Any, Node] = {}
        self._later: list[tuple[float, Node]] = []

    def execute(self, fresh: Collection[str] = ()) -> Artifact:
        """Run what is not committed; returns the workflow's result. Raises what the first failed step raised."""
        waiting = list(self.graph.nodes)
        try:
            while waiting or self._running or self._later:
                waiting = self._advance(waiting, fresh)
                self._collect()
                self._show()
            self._end("done")
        except RaypathError:
            self._end("failed")
            raise
        except BaseException:
            self._end("stopped")
            raise
        return self._result()

    def _advance(self, waiting: list[Node], fresh: Collection[str]) -> list[Node]:
        """Settle or start every step whose inputs are done; returns those that still wait."""
        progress = True
        while progress:
            progress = False
            for node in list(waiting):
                if all(ref.step in self.done for ref in node.inputs):
                    waiting.remove(node)
                    progress = self._settle(node, node.name in fresh) or progress
        now = time.time()
        due = [node for at, node in self._later if at <= now]
        self._later = [(at, node) for at, node in self._later if at > now]
        for node in due:
            self._start(node)
        return waiting

    def _settle(self, node: Node, fresh: bool) -> bool:
        """Reuse a step's record, or start the step. True when it was reused."""
        state = self.run.step(node.name)
        state.ingredients = ingredients(node, self.graph, self.done)
        state.key = key_of(state.ingredients)
        if fresh:
            self.store.forget(state.key)
        record = self.store.record(state.key)
        if record is None:
            state.reason = "asked for with --fresh" if fresh else why(state.ingredients, self.before.get(node.name))
        else:
            artifact = node.component.output.model_validate_json(json.dumps(record.artifact))
            if self._still_there(node, artifact):
                state.status, state.reason, state.artifact = "reused", "nothing changed", record.artifact
                self.done[node.name] = artifact
                return True
            self.store.forget(state.key)
            state.reason = "what it made is no longer there"
        self._start(node)
        return False

    def _still_there(self, node: Node, artifact: Artifact) -> bool:
        """Ask what lives outside the store whether it is; brings its service up when it does not answer."""
        if node.component.alive is None:
            return True
        context = self._context(node)
        try:
            return node.component.alive(context, artifact)
        except Unavailable:
            self.platform.start()
            self.platform.heal()
            return node.component.alive(self._context(node), artifact)

    def _context(self, node: Node) -> Context:
        nowhere = self.store.home / "attempts"
        tracking = self.platform.tracking(self.graph.workflow, self.run.id)
        url = self.platform.serve_url()
        return Context(step=node.name, out=nowhere, scratch=nowhere, tracking=tracking, serve_url=url)

    def _start(self, node: Node) -> None:
        free = self.store.free_bytes()
        if free < MIN_FREE:
            got = f"the disk of {self.store.home} has {free >> 20} MiB free; wanted at least {MIN_FREE >> 20} MiB"
            raise StoreError(got, fix="free room or set RAYPATH_HOME, then run the same line again", step=node.name)
        self._show()
        self.platform.start()
        self.platform.record(self.run)
        state = self.run.step(node.name)
        state.status, state.started, state.attempts = "running", time.time(), state.attempts + 1
        progress_file(self.store.home, state.key).unlink(missing_ok=True)
        self._running[self.platform.submit(self._spec(node))] = node
        self.run.save(self.store.home)

    def _spec(self, node: Node) -> StepSpec:
        state = self.run.step(node.name)
        workers, gpus = machine()
        values = arguments_of(node, self.done)
        return StepSpec(
            home=str(self.store.home),
            run=self.run.id,
            step=node.name,
            component=node.component.path,
            key=state.key,
            ingredients=state.ingredients,
            arguments=[None if value is None else _plain(value) for value in values],
            seed=self.graph.seed,
            workers=workers,
            gpus=gpus,
            tracking=dataclasses.asdict(self.platform.tracking(self.graph.workflow, self.run.id)),
            serve_url=self.platform.serve_url(),
            public_url=self.platform.public_url(),
            store=self.store.address,
        )

    def _collect(self) -> None:
        if not self._running:
            if self._later:
                time.sleep(POLL)
            return
        for handle, outcome in self.platform.poll(list(self._running), POLL):
            node = self._running.pop(handle)
            self._take(node, outcome)

    def _take(self, node: Node, outcome: Outcome) -> None:
        """Keep what a step made; try again after a fault of the infrastructure; raise any other error."""
        state = self.run.step(node.name)
        state.seconds, state.warnings = time.time() - state.started, list(outcome.warnings)
        if outcome.artifact is not None:
            state.status, state.artifact = "done", outcome.artifact
            self.done[node.name] = node.component.output.model_validate_json(json.dumps(outcome.artifact))
            figures = outcome.artifact.get("metrics", {})
            self.platform.note({f"{node.name}/{k}": v for k, v in figures.items() if "/" not in k})
            self.run.save(self.store.home)
            return
        log.debug("step %s failed\n%s", node.name, outcome.trace)
        if kinds().get(outcome.error, StepFailed).retry and state.attempts <= RETRIES:
            wait = 2.0 ** (state.attempts - 1)
            state.status, state.reason = "waiting", f"{outcome.what}; trying again in {wait:.0f} s"
            self._show()
            self.platform.heal()
            self._later.append((time.time() + wait, node))
            return
        state.status, state.error = "failed", f"{outcome.what}; {outcome.fix}"
        outcome.raise_error(node.name)

    def _end(self, status: str) -> None:
        if self._running:
            self.platform.cancel(list(self._running))
        for state in self.run.steps:
            if state.status == "running":
                state.status = "stopped"
        self.run.status, self.run.ended = status, time.time()
        self.run.save(self.store.home)
        self._show()

    def _show(self) -> None:
        self.watcher.update(self.run)

    def _result(self) -> Artifact:
        found = self.done[self.graph.result.step]
        for name in self.graph.result.fields:
            found = getattr(found, name)
        return found


def read_progress(home: Path, key: str) -> tuple[float, float, str]:
    """(done, total, note) as a running step last told; zeros when it has not."""
    try:
        line = json.loads(progress_file(home, key).read_text("utf-8"))
        return float(line["done"]), float(line["total"]), str(line["message"])
    except (OSError, ValueError, KeyError):
        return 0.0, 0.0, ""


def _plain(value: Artifact | Params) -> dict[str, Any]:
    return value.model_dump(mode="json")
