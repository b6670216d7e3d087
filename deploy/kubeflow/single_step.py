"""Run a single step in its own process: cache key, reuse of its record, execution, metrics in MLflow.

`raypath.deploy.execution.runner` does the same for all steps of a run.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from raypath.components.core.artifacts import Artifact
from raypath.components.core.context import Tracking
from raypath.components.core.errors import PlatformError, RaypathError, StoreError, Unavailable, UserError
from raypath.components.core.graph import Graph, Node
from raypath.components.data.sources.retry import retry
from raypath.components.models.process import cpu_count, gpu_count
from raypath.deploy.execution.runner import MIN_FREE, RETRIES
from raypath.deploy.execution.step import Outcome, StepSpec, liveness_context, run_step
from raypath.deploy.kubeflow.pipeline import references
from raypath.deploy.local import state as services
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import SHARED, Store

T = TypeVar("T")
FLUSH = 30.0
"""Seconds that a container waits at its end for the upload of its metrics, which are lost with it."""


@dataclass(frozen=True)
class PreparedStep:
    """A step with everything that running it takes."""

    graph: Graph
    node: Node
    store: Store
    spec: StepSpec
    fresh: bool


def prepare_environment(home: Path, cluster: bool = False) -> Store:
    """Open the shared store, and set the environment of Ray and MLflow before they are imported.

    cluster: this process belongs to a Ray cluster; otherwise a step that uses Ray starts it in this container.
    Raises UserError where no store is set, UserError or Unavailable where it cannot be used.
    """
    if not os.environ.get(SHARED):
        fix = "render the pipeline with -s kubeflow.store=..."
        raise UserError(f"{SHARED} is not set, so the next container would not find the artifacts of this one", fix=fix)
    store = with_retries(lambda: open_store(home))
    if cluster:
        variables = {name: value for name, value in services.ALWAYS.items() if name not in services.ONE_MACHINE}
    else:
        # Without "local" Ray would join any cluster that it finds on this machine.
        alone = {"RAY_ADDRESS": "local", "RAY_AUTH_TOKEN_PATH": str(services.token(home))}
        variables = {**services.environment(home), **alone}
    os.environ.update({name: value for name, value in variables.items() if name not in os.environ})
    return store


def prepare(graph: Graph, name: str, keys: Mapping[str, str], plan: Mapping[str, Any], store: Store) -> PreparedStep:
    """Prepare the step of that name. keys: records of its inputs, by argument. Raises StoreError for a missing one."""
    node = next(node for node in graph.nodes if node.name == name)
    makers = {other.name: other.component for other in graph.nodes}
    done: dict[str, Artifact] = {}
    for argument, ref in references(node):
        record = store.record(keys[argument])
        if record is None:
            raise StoreError(f"the store lacks the output of {ref.step}", fix="run the pipeline again", step=name)
        done[ref.step] = makers[ref.step].output.model_validate_json(json.dumps(record.artifact))
    place = tracking(store.home, graph, plan["run"])
    spec = StepSpec.of(node, graph, done, store, place, run=plan["run"], workers=cpu_count(), gpus=gpu_count())
    return PreparedStep(graph, node, store, spec, name in plan["fresh"])


def reusable(one: PreparedStep) -> Artifact | None:
    """The recorded output of the step, if the record and what the step left outside the store are still valid."""
    record = one.store.record(one.spec.key)
    if record is None:
        return None
    artifact = _artifact(one, record.artifact)
    # A retried container must not discard a record of the same run.
    stale = one.fresh and record.run != one.spec.run
    if not stale and with_retries(lambda: _is_alive(one, artifact), one.node.name):
        return artifact
    one.store.forget(one.spec.key)
    return None


def run(one: PreparedStep, do: Callable[[StepSpec], Outcome] = run_step) -> Artifact:
    """Run the step and commit its output, while its metrics are uploaded to MLflow. Raises the step's error.

    do: `run_step`, or a function that runs it elsewhere.
    """
    if (free := one.store.free_bytes()) < MIN_FREE:
        got = f"the store has {free >> 20} MiB free; wanted at least {MIN_FREE >> 20} MiB"
        raise StoreError(got, fix="free space, then run again", step=one.node.name)
    with _uploading_metrics(Tracking(**one.spec.tracking), one.graph) as track:
        artifact = with_retries(lambda: _once(one, do), one.node.name)
        metrics = getattr(artifact, "metrics", {})
        track.metrics({f"{one.node.name}/{k}": v for k, v in metrics.items() if "/" not in k and math.isfinite(v)})
    return artifact


def committed(one: PreparedStep) -> Artifact:
    """The output of a step that ran elsewhere. Raises PlatformError where nothing was committed."""
    record = one.store.record(one.spec.key)
    if record is None:
        raise PlatformError(
            "the step ended without an output", fix="check that its pods use the same store", step=one.node.name
        )
    return _artifact(one, record.artifact)


def open_run(home: Path, graph: Graph, run: str) -> None:
    """Open the run in MLflow, where a server is set. Raises Unavailable when it does not answer."""
    from raypath.components.tracking.login import is_rejected
    from raypath.components.tracking.uploader import reachable

    place = tracking(home, graph, run)
    if place.uri:
        with_retries(lambda: reachable(place.uri) or _unreachable(place.uri))
        if is_rejected(place.uri):
            fix = "copy the Secret raypath-mlflow into this namespace, or set kubeflow.mlflow_secret"
            raise UserError(f"MLflow at {place.uri} asks for a login", fix=fix)
        with _uploading_metrics(place, graph):
            pass


def tracking(home: Path, graph: Graph, run: str) -> Tracking:
    """Target of the metrics; none without MLFLOW_TRACKING_URI."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return Tracking(uri=uri, experiment=graph.workflow, parent=run, spool=str(home / "spool")) if uri else Tracking()


def _unreachable(uri: str) -> bool:
    raise Unavailable(f"MLflow does not answer at {uri}", fix="start it, or set kubeflow.tracking")


def _once(one: PreparedStep, do: Callable[[StepSpec], Outcome]) -> Artifact:
    outcome = do(one.spec)
    for line in (*outcome.notes, *outcome.warnings):
        print(f"{one.node.name}: {line}", flush=True)
    if outcome.artifact is None:
        outcome.raise_error(one.node.name)
    assert outcome.artifact is not None
    return _artifact(one, outcome.artifact)


def _is_alive(one: PreparedStep, artifact: Artifact) -> bool:
    if one.node.component.alive is None:
        return True
    context = liveness_context(one.node.name, one.store.home, Tracking(**one.spec.tracking))
    return one.node.component.alive(context, artifact)


def _artifact(one: PreparedStep, found: dict[str, Any]) -> Artifact:
    made: Artifact = one.node.component.output.model_validate_json(json.dumps(found))
    return made


def with_retries(work: Callable[[], T], step: str = "") -> T:
    """Return the result of `work`, retried after infrastructure failures."""

    def report(error: RaypathError, delay: float) -> None:
        print(f"{step + ': ' if step else ''}{error.what}; retrying in {delay:.0f} s", flush=True)

    return retry(work, RETRIES, on_retry=report)


@contextmanager
def _uploading_metrics(place: Tracking, graph: Graph) -> Iterator[Any]:
    """Open the workflow's run in MLflow, and upload what is logged until the block ends."""
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
        if place.uri:
            upload.stop(FLUSH)
