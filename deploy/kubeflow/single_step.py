"""One step by itself, in a process of its own: its key, whether its record stands, running it, its numbers in MLflow.

What `runner` does for all steps of a run, for who runs one at a time.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from raypath.components.core.artifacts import Artifact
from raypath.components.core.context import Tracking
from raypath.components.core.errors import PlatformError, RaypathError, StoreError, Unavailable, UserError
from raypath.components.core.graph import Graph, Node
from raypath.components.core.resources import cpu_count, gpu_count
from raypath.deploy.execution.runner import MIN_FREE, RETRIES
from raypath.deploy.execution.step import Outcome, StepSpec, liveness_context, run_step
from raypath.deploy.kubeflow.pipeline import references
from raypath.deploy.local import state as services
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import SHARED, Store

T = TypeVar("T")
FLUSH = 30.0
"""Seconds that a container waits at its end for MLflow to take its numbers: they go with it."""


@dataclass(frozen=True)
class PreparedStep:
    """A step with all that running it takes."""

    graph: Graph
    node: Node
    store: Store
    spec: StepSpec
    fresh: bool


def ground(home: Path, cluster: bool = False) -> Store:
    """The store that all share, and in the environment what Ray and MLflow are told before they are imported.

    cluster: this process is in a Ray cluster. Else Ray, where a step asks for it, starts on this machine alone.
    Raises UserError where no store is set, UserError or Unavailable where it cannot be used.
    """
    if not os.environ.get(SHARED):
        fix = "render the pipeline with -s kubeflow.store=..."
        raise UserError(f"{SHARED} is not set: the next container would not find what this one makes", fix=fix)
    store = patiently(lambda: open_store(home))
    if cluster:
        told = {name: value for name, value in services.ALWAYS.items() if name not in services.ONE_MACHINE}
    else:
        # "local": else Ray would join whatever Ray it finds on this machine.
        alone = {"RAY_ADDRESS": "local", "RAY_AUTH_TOKEN_PATH": str(services.token(home))}
        told = {**services.environment(home), **alone}
    os.environ.update({name: value for name, value in told.items() if name not in os.environ})
    return store


def prepare(graph: Graph, name: str, keys: Mapping[str, str], plan: Mapping[str, Any], store: Store) -> PreparedStep:
    """The step of that name. keys: the records of its inputs, by argument. Raises StoreError where one is gone."""
    node = next(node for node in graph.nodes if node.name == name)
    makers = {other.name: other.component for other in graph.nodes}
    done: dict[str, Artifact] = {}
    for argument, ref in references(node):
        record = store.record(keys[argument])
        if record is None:
            raise StoreError(f"what {ref.step} made is gone from the store", fix="run the pipeline again", step=name)
        done[ref.step] = makers[ref.step].output.model_validate_json(json.dumps(record.artifact))
    place = tracking(store.home, graph, plan["run"])
    spec = StepSpec.of(node, graph, done, store, place, run=plan["run"], workers=cpu_count(), gpus=gpu_count())
    return PreparedStep(graph, node, store, spec, name in plan["fresh"])


def reusable(one: PreparedStep) -> Artifact | None:
    """What the step made before, where its record and what it left outside the store still stand."""
    record = one.store.record(one.spec.key)
    if record is None:
        return None
    artifact = _artifact(one, record.artifact)
    # A container that is tried again must not forget what this very run has made.
    stale = one.fresh and record.run != one.spec.run
    if not stale and patiently(lambda: _alive(one, artifact), one.node.name):
        return artifact
    one.store.forget(one.spec.key)
    return None


def run(one: PreparedStep, do: Callable[[StepSpec], Outcome] = run_step) -> Artifact:
    """Run the step and commit it; its numbers are carried to MLflow meanwhile. Raises what it ended with.

    do: `run_step`, or what has it done elsewhere.
    """
    if (free := one.store.free_bytes()) < MIN_FREE:
        got = f"the store has {free >> 20} MiB free; wanted at least {MIN_FREE >> 20} MiB"
        raise StoreError(got, fix="free room, then run again", step=one.node.name)
    with _carried(Tracking(**one.spec.tracking), one.graph) as track:
        artifact = patiently(lambda: _once(one, do), one.node.name)
        figures = getattr(artifact, "metrics", {})
        track.metrics({f"{one.node.name}/{k}": v for k, v in figures.items() if "/" not in k and math.isfinite(v)})
    return artifact


def committed(one: PreparedStep) -> Artifact:
    """What the step made elsewhere. Raises PlatformError where nothing was committed."""
    record = one.store.record(one.spec.key)
    if record is None:
        raise PlatformError("it ended without a result", fix="is its store the same?", step=one.node.name)
    return _artifact(one, record.artifact)


def begin(home: Path, graph: Graph, run: str) -> None:
    """Open the run in MLflow, where there is a server. Raises Unavailable when it does not answer."""
    from raypath.components.tracking.uploader import reachable

    place = tracking(home, graph, run)
    if place.uri:
        patiently(lambda: reachable(place.uri) or _away(place.uri))
        with _carried(place, graph):
            pass


def tracking(home: Path, graph: Graph, run: str) -> Tracking:
    """Where numbers go; nowhere without MLFLOW_TRACKING_URI."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return Tracking(uri=uri, experiment=graph.workflow, parent=run, spool=str(home / "spool")) if uri else Tracking()


def _away(uri: str) -> bool:
    raise Unavailable(f"MLflow does not answer at {uri}", fix="start it, or set kubeflow.tracking")


def _once(one: PreparedStep, do: Callable[[StepSpec], Outcome]) -> Artifact:
    outcome = do(one.spec)
    for line in outcome.warnings:
        print(f"{one.node.name}: {line}", flush=True)
    if outcome.artifact is None:
        outcome.raise_error(one.node.name)
    assert outcome.artifact is not None
    return _artifact(one, outcome.artifact)


def _alive(one: PreparedStep, artifact: Artifact) -> bool:
    if one.node.component.alive is None:
        return True
    context = liveness_context(one.node.name, one.store.home, Tracking(**one.spec.tracking))
    return one.node.component.alive(context, artifact)


def _artifact(one: PreparedStep, found: dict[str, Any]) -> Artifact:
    made: Artifact = one.node.component.output.model_validate_json(json.dumps(found))
    return made


def patiently(work: Callable[[], T], step: str = "") -> T:
    """Its result, after further attempts where the ground shook."""
    for attempt in range(RETRIES + 1):
        try:
            return work()
        except RaypathError as error:
            if not error.retry or attempt == RETRIES:
                raise
            print(f"{step + ': ' if step else ''}{error.what}; trying again in {2**attempt} s", flush=True)
            time.sleep(2.0**attempt)
    raise AssertionError("unreachable")


@contextmanager
def _carried(place: Tracking, graph: Graph) -> Iterator[Any]:
    """The workflow's run in MLflow; all that is noted here meanwhile has been carried there at the end."""
    from raypath.components.tracking.run import track
    from raypath.components.tracking.uploader import UploadThread

    params = graph.params.flat()
    upload = UploadThread(place)
    if place.uri:
        upload.start()
    try:
        with track(place, name=place.parent, kind="workflow", params=params, parent="", run_id=place.parent) as opened:
            yield opened
    finally:
        if place.uri and (left := upload.stop(FLUSH)):
            print(f"MLflow did not take the numbers of {left} runs", flush=True)
