"""`run_step`: the one place where a component's function is called, whatever launched it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Artifact
from raypath.components.core.component import Component
from raypath.components.core.context import Context, Tracking
from raypath.components.core.errors import RaypathError, StepFailed, StoreError, kinds
from raypath.components.core.files import is_disk_full
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import Record, Store


@dataclass(frozen=True)
class StepSpec:
    """All that a process elsewhere needs to run a step; plain text and numbers, so that JSON can carry it."""

    home: str
    run: str
    step: str
    component: str
    """module:function"""
    key: str
    ingredients: dict[str, str]
    arguments: list[dict[str, Any] | None]
    """Artifacts and Params as JSON values, in the order of the function; None for one left out."""
    seed: int = 0
    workers: int = 1
    gpus: int = 0
    tracking: dict[str, str] = field(default_factory=dict)
    serve_url: str = ""
    public_url: str = ""
    node: str = ""
    """As Context.node."""
    store: str = ""
    """What `open_store` takes beside the home."""


@dataclass(frozen=True)
class Outcome:
    """What came of a step: an artifact, or an error in plain text."""

    artifact: dict[str, Any] | None = None
    error: str = ""
    """The error's class in the tree of `raypath.components.core.errors`."""
    what: str = ""
    fix: str = ""
    trace: str = ""
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    """What the step warned of, for its user."""

    def raise_error(self, step: str) -> None:
        """Raise the error that the step ended with."""
        error = kinds().get(self.error, StepFailed)(self.what, fix=self.fix, step=step)
        error.add_note(self.trace)
        raise error


def load_component(path: str) -> Component[Any, Any]:
    """The component at `module:function`."""
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, Component), path
    return found


def run_step(spec: StepSpec) -> Outcome:
    """Run one step and commit it. Never raises: what went wrong comes back as an Outcome."""
    with _listening() as said:
        outcome = _outcome(spec)
    return dataclasses.replace(outcome, warnings=tuple(said))


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect the warnings of the steps' loggers; a step's process has no terminal of its own."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    logger = logging.getLogger("raypath")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _outcome(spec: StepSpec) -> Outcome:
    started = time.time()
    try:
        artifact = _run(spec, started)
    except RaypathError as error:
        return _failed(error, error.what, error.fix, started)
    except Exception as error:  # noqa: BLE001 - a user's component may raise anything; it is reported, not hidden
        if is_disk_full(error):
            return _failed(StoreError(""), f"the disk of {spec.home} is full", ROOM, started)
        return _failed(StepFailed(""), _named(error), _REPORT, started)
    return Outcome(artifact=artifact.model_dump(mode="json"), seconds=time.time() - started)


ROOM = "free room, then run the same line again"
_REPORT = "run again with --debug for the traceback"


def _run(spec: StepSpec, started: float) -> Artifact:
    store = open_store(Path(spec.home), spec.store)
    component = load_component(spec.component)
    with store.lock(spec.key):
        # Another run may have committed the very same step while this one waited for the lock.
        done = store.record(spec.key)
        if done is not None:
            return component.output.model_validate_json(_json(done.artifact))
        attempt = store.attempt(spec.key)
        artifact = _call(component, spec, store, attempt)
        record = Record(
            key=spec.key,
            step=spec.step,
            component=spec.component,
            ingredients=spec.ingredients,
            artifact={},
            started=started,
            seconds=time.time() - started,
            run=spec.run,
        )
        return store.commit(record, artifact, attempt)


def _call(component: Component[Any, Any], spec: StepSpec, store: Store, attempt: Path) -> Artifact:
    from raypath.components.tracking.run import track

    arguments = [
        None if value is None else _argument(argument.kind.model_validate_json(_json(value)), store)
        for argument, value in zip(component.arguments, spec.arguments, strict=True)
    ]
    settings = {k: v for k, v in spec.ingredients.items() if "." in k.partition(" ")[0]}
    context = context_of(spec, store, attempt)
    with track(context.tracking, name=spec.step, params=settings, tags={"raypath.key": spec.key}, system=True) as run:
        return _checked(component, component.fn(dataclasses.replace(context, track=run), *arguments))


def _argument(value: Any, store: Store) -> Any:
    """An input's files may still be on the machine that made them."""
    return store.local(value) if isinstance(value, Artifact) else value


def context_of(spec: StepSpec, store: Store, attempt: Path) -> Context:
    """The context of a step in this process."""
    scratch = store.scratch(spec.key)
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Context(
        step=spec.step,
        out=attempt,
        scratch=scratch,
        seed=spec.seed,
        workers=spec.workers,
        gpus=spec.gpus,
        tracking=Tracking(**spec.tracking),
        run=spec.run,
        key=spec.key,
        progress=progress_file(Path(spec.home), spec.key),
        serve_url=spec.serve_url,
        public_url=spec.public_url,
        node=spec.node,
        api_keys=Path(spec.home) / "access",
        predictions=Path(spec.home) / "predictions",
    )


def progress_file(home: Path, key: str) -> Path:
    """Where a step says how far it is."""
    return home / "attempts" / f"{key}.progress"


def _checked(component: Component[Any, Any], made: Any) -> Artifact:
    if not isinstance(made, component.output):
        got = type(made).__name__
        raise StepFailed(f"{component.path} returned {got}", fix=f"it declares {component.output.__name__}")
    return made


def _failed(kind: RaypathError, what: str, fix: str, started: float) -> Outcome:
    name, trace = type(kind).__name__, traceback.format_exc()
    return Outcome(error=name, what=what, fix=fix, trace=trace, seconds=time.time() - started)


def _named(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def machine() -> tuple[int, int]:
    """(CPU cores this process may use, CUDA devices on this machine), without importing torch."""
    devices = len([n for n in os.listdir("/dev") if n.startswith("nvidia") and n[6:].isdigit()])
    return len(os.sched_getaffinity(0)), devices
