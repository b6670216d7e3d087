"""Preflight checks of a run on a cluster.

Before submission: do the nodes have the resources that the settings ask for? Before the first step, by a small task on
each node: are the store and MLflow reachable from there?
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from raypath.components.core.errors import PlatformError, RaypathError, UserError
from raypath.components.core.graph import Graph
from raypath.components.data.streaming.ray_errors import unwrap
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import Store

TIMEOUT = 120.0
"""Seconds for all nodes: a node's first worker has to fetch the working folder."""


def check_capacity(graph: Graph, nodes: Collection[Mapping[str, float]]) -> None:
    """Raise UserError for training workers or replicas that do not fit on the nodes.

    nodes: resources of each node; empty skips the check.
    """
    from raypath.components.serving.params import ServeParams
    from raypath.components.training.params import TrainingParams

    given = [argument for node in graph.nodes for argument in node.arguments]
    for each in given if nodes else []:
        if isinstance(each, TrainingParams) and each.workers > 1:
            kind = "GPU" if any(node.get("GPU") for node in nodes) else "CPU"
            capacity = sum(int(node.get(kind, 0)) for node in nodes)
            _check_enough(f"workers={each.workers}", each.workers, f"{kind}s", capacity)
        if isinstance(each, ServeParams):
            replicas = max(each.replicas, 1)
            for name, kind, wanted in (("gpus", "GPU", each.gpus), ("cpus", "CPU", each.cpus)):
                capacity = sum(int(node.get(kind, 0) / wanted) for node in nodes) if wanted else replicas
                _check_enough(f"serve.{name}={wanted:g}", replicas, "such replicas", capacity)


def _check_enough(setting: str, wanted: int, what: str, capacity: int) -> None:
    if wanted > capacity:
        message = f"{setting}: the cluster has capacity for {capacity} {what}; wanted {wanted}"
        raise UserError(message, fix="lower the setting, or add nodes")


def check_nodes(nodes: Collection[Mapping[str, Any]], store: Store, mlflow: str) -> bool:
    """Check the store and MLflow from every node; True where all nodes share the driver's home.

    Raises UserError for a node that does not reach the store or MLflow. Without a store of its own the artifacts are in
    the home, which then has to be shared.
    """
    name = f"preflight-{uuid.uuid4().hex}"
    markers = [folder / "attempts" / name for folder in {store.home, store.root}]
    for marker in markers:
        marker.touch()
    try:
        results = _run_on_nodes(nodes, (str(store.home), store.address, name, mlflow))
    finally:
        for marker in markers:
            marker.unlink(missing_ok=True)
    problems = {node: problem for node, (problem, _) in results.items() if problem}
    if problems:
        node, problem = next(iter(problems.items()))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"node {node}{more}: {problem[0]}", fix=problem[1])
    return all(shared for _, shared in results.values())


def _run_on_nodes(nodes: Collection[Mapping[str, Any]], arguments: tuple[str, ...]) -> dict[str, Any]:
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Affinity

    task = ray.remote(num_cpus=0, max_retries=1)(check_node)
    submitted = {}
    for node in nodes:
        submitted[task.options(scheduling_strategy=Affinity(node["NodeID"], soft=False)).remote(*arguments)] = node
    ready, waiting = ray.wait(list(submitted), num_returns=len(submitted), timeout=TIMEOUT)
    if waiting:
        name = submitted[waiting[0]]["NodeManagerAddress"]
        raise PlatformError(f"node {name} ran no task within {TIMEOUT:.0f} s", fix="check its Ray logs")
    try:
        return {submitted[handle]["NodeManagerAddress"]: ray.get(handle) for handle in ready}
    except RayError as error:
        text = str(unwrap(error)).strip().splitlines()
        raise PlatformError(f"a node could not run Raypath: {text[-1][:300]}", fix="see the Ray logs") from None


def check_node(home: str, remote: str, marker: str, mlflow: str) -> tuple[tuple[str, str] | None, bool]:
    """Check this node: (problem and remedy or None, True where the driver's home is visible)."""
    problem = _check_store(home, remote, marker) or _check_mlflow(mlflow)
    return problem, (Path(home) / "attempts" / marker).exists()


def _check_store(home: str, remote: str, marker: str) -> tuple[str, str] | None:
    try:
        store = open_store(Path(home), remote)
    except RaypathError as error:
        return error.what, error.fix
    if "://" in remote:
        return None
    if not (store.root / "attempts" / marker).exists():
        what = f"{store.root} is not the same folder as on the driver's node"
        return what, "set -s ray.store=s3://BUCKET/FOLDER, or a folder that all nodes mount"
    return None if os.access(store.root, os.W_OK) else (f"{store.root} cannot be written", "let Ray's user write it")


def _check_mlflow(url: str) -> tuple[str, str] | None:
    from raypath.components.tracking.login import is_rejected
    from raypath.components.tracking.uploader import reachable

    if not url:
        return None
    if reachable(url, timeout=5.0):
        fix = "set MLFLOW_TRACKING_TOKEN where Ray is started on the nodes"
        return (f"MLflow at {url} asks for a login", fix) if is_rejected(url) else None
    return f"MLflow at {url} does not answer", "set -s ray.mlflow=http://HOST:PORT as the nodes reach it"
