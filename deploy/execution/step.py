"""Execution of one step: `run_step` is the only place where a component's function is called, for every launcher."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Artifact
from raypath.components.core.component import Component
from raypath.components.core.context import Context, Tracking
from raypath.components.core.errors import RaypathError, StepFailed, StoreError, kinds, printable
from raypath.components.core.files import is_disk_full
from raypath.components.core.graph import Graph, Node
from raypath.deploy.execution.cache_key import cache_key_inputs, compute_key, is_setting, resolve_arguments
from raypath.deploy.execution.progress import progress_file
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import Record, Store

FREE_SPACE_HINT = "free disk space, then run the same command again"
_DEBUG_HINT = "run again with --debug for the traceback"


@dataclass(frozen=True)
class StepSpec:
    """Everything a process elsewhere needs to run a step, as plain text and numbers that JSON can carry."""

    home: str
    run: str
    step: str
    component: str
    """module:function"""
    key: str
    key_inputs: dict[str, str]
    arguments: list[dict[str, Any] | None]
    """Artifacts and Params as JSON values, in the order of the function's arguments; None for an omitted one."""
    seed: int = 0
    workers: int = 1
    cluster_workers: int = 0
    """As Context.cluster_workers."""
    gpus: int = 0
    tracking: dict[str, str] = field(default_factory=dict)
    serve_url: str = ""
    public_url: str = ""
    node: str = ""
    """As Context.node."""
    store: str = ""
    """Second argument of `open_store`."""

    @classmethod
    def of(
        cls,
        node: Node,
        graph: Graph,
        done: Mapping[str, Artifact],
        store: Store,
        tracking: Tracking,
        *,
        run: str,
        workers: int,
        gpus: int,
        key_inputs: dict[str, str] | None = None,
        serve_url: str = "",
        public_url: str = "",
    ) -> StepSpec:
        """Describe a step of a graph whose input artifacts are in `done`. key_inputs: computed when not given."""
        inputs = cache_key_inputs(node, graph, done) if key_inputs is None else key_inputs
        values = resolve_arguments(node, done)
        return cls(
            home=str(store.home),
            run=run,
            step=node.name,
            component=node.component.path,
            key=compute_key(inputs),
            key_inputs=inputs,
            arguments=[None if value is None else value.model_dump(mode="json") for value in values],
            seed=graph.seed,
            workers=workers,
            gpus=gpus,
            tracking=dataclasses.asdict(tracking),
            serve_url=serve_url,
            public_url=public_url,
            store=store.address,
        )


@dataclass(frozen=True)
class Outcome:
    """Result of a step: an artifact, or an error as plain text."""

    artifact: dict[str, Any] | None = None
    error: str = ""
    """Name of the error's class in `raypath.components.core.errors`."""
    what: str = ""
    fix: str = ""
    trace: str = ""
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    """Warnings that the step logged."""
    notes: tuple[str, ...] = ()
    """Information that the step logged, such as the settings that it chose."""

    def raise_error(self, step: str) -> None:
        """Raise the step's error."""
        error = kinds().get(self.error, StepFailed)(self.what, fix=self.fix, step=step)
        error.add_note(self.trace)
        raise error


def load_component(path: str) -> Component[Any, Any]:
    """Import the component at `module:function`."""
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, Component), path
    return found


def run_step(spec: StepSpec) -> Outcome:
    """Run one step and commit its artifact. Never raises: errors are returned in the Outcome."""
    with _collect_messages() as (warnings, notes):
        outcome = _outcome(spec)
    return dataclasses.replace(outcome, warnings=tuple(warnings), notes=tuple(notes))


@contextlib.contextmanager
def _collect_messages() -> Iterator[tuple[list[str], list[str]]]:
    """Collect warnings and information of the `raypath` loggers; the step's process has no terminal of its own."""
    warnings: list[str] = []
    notes: list[str] = []

    def emit(record: logging.LogRecord) -> None:
        found = warnings if record.levelno >= logging.WARNING else notes
        found.append(printable(" ".join(record.getMessage().split())))

    handler = logging.Handler(logging.INFO)
    handler.emit = emit  # type: ignore[method-assign]
    logger = logging.getLogger("raypath")
    level = logger.level
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    logger.addHandler(handler)
    try:
        yield warnings, notes
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _outcome(spec: StepSpec) -> Outcome:
    started = time.time()
    try:
        artifact = _run(spec, started)
    except RaypathError as error:
        return _failed(error, error.what, error.fix, started)
    except Exception as error:  # noqa: BLE001 - a user's component may raise anything; it is reported, not hidden
        if is_disk_full(error):
            return _failed(StoreError(""), f"the disk of {spec.home} is full", FREE_SPACE_HINT, started)
        return _failed(StepFailed(""), first_line(error), _DEBUG_HINT, started)
    return Outcome(artifact=artifact.model_dump(mode="json"), seconds=time.time() - started)


def _run(spec: StepSpec, started: float) -> Artifact:
    store = open_store(Path(spec.home), spec.store)
    component = load_component(spec.component)
    with contextlib.closing(store), store.lock(spec.key):
        # Another run may have committed the same step while this one waited for the lock.
        done = store.record(spec.key)
        if done is not None:
            return component.output.model_validate_json(json.dumps(done.artifact))
        attempt = store.attempt(spec.key)
        artifact = _call(component, spec, store, attempt)
        record = Record(
            key=spec.key,
            step=spec.step,
            component=spec.component,
            key_inputs=spec.key_inputs,
            artifact={},
            started=started,
            seconds=time.time() - started,
            run=spec.run,
        )
        return store.commit(record, artifact, attempt)


def _call(component: Component[Any, Any], spec: StepSpec, store: Store, attempt: Path) -> Artifact:
    from raypath.components.tracking.run import track
    from raypath.components.tracking.tags import KEY

    given = [
        None if value is None else argument.kind.model_validate_json(json.dumps(value))
        for argument, value in zip(component.arguments, spec.arguments, strict=True)
    ]
    arguments = [_local(value, store, component.by_shard) for value in given]
    settings = {k: v for k, v in spec.key_inputs.items() if is_setting(k)}
    context = step_context(spec, store, attempt)
    with track(context.tracking, name=spec.step, params=settings, tags={KEY: spec.key}, system=True) as run:
        return _checked(component, component.fn(dataclasses.replace(context, track=run), *arguments))


def _local(value: Any, store: Store, by_shard: bool) -> Any:
    """Fetch an input artifact's files, which may be in object storage or on another machine."""
    return store.local(value, by_shard) if isinstance(value, Artifact) else value


def step_context(spec: StepSpec, store: Store, attempt: Path) -> Context:
    """Return the context of a step in this process."""
    scratch = store.scratch(spec.key)
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Context(
        step=spec.step,
        out=attempt,
        scratch=scratch,
        seed=spec.seed,
        workers=spec.workers,
        cluster_workers=spec.cluster_workers,
        gpus=spec.gpus,
        tracking=Tracking(**spec.tracking),
        run=spec.run,
        key=spec.key,
        progress=progress_file(Path(spec.home), spec.key),
        serve_url=spec.serve_url,
        public_url=spec.public_url,
        node=spec.node,
        storage=store.shard_storage(),
        api_keys=Path(spec.home) / "access",
        signing=Path(spec.home) / "signing",
        predictions=Path(spec.home) / "predictions",
    )


def liveness_context(step: str, home: Path, tracking: Tracking, serve_url: str = "") -> Context:
    """Return the context in which a component checks that what it made outside the store still exists."""
    unused = home / "attempts"
    return Context(step=step, out=unused, scratch=unused, tracking=tracking, serve_url=serve_url)


def _checked(component: Component[Any, Any], made: Any) -> Artifact:
    if not isinstance(made, component.output):
        got = type(made).__name__
        raise StepFailed(f"{component.path} returned {got}", fix=f"it declares {component.output.__name__}")
    return made


def _failed(kind: RaypathError, what: str, fix: str, started: float) -> Outcome:
    name, trace = type(kind).__name__, traceback.format_exc()
    return Outcome(error=name, what=what, fix=fix, trace=trace, seconds=time.time() - started)


def first_line(error: BaseException) -> str:
    """Format an error as its class and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
