"""What is looked at before anything is paid for: before submission, whether the nodes have what the settings ask for;
before the first step, by a small task on each node, whether the store and MLflow can be reached from there.
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

SECONDS = 120.0
"""For all nodes: a node's first worker has to fetch the working folder."""


def check_capacity(graph: Graph, nodes: Collection[Mapping[str, float]], local_storage_only: bool) -> None:
    """Raise UserError for training workers or replicas that these nodes, by their resources, have no room for.

    local_storage_only: nodes share object storage alone, so that a step and its workers stay on one.
    """
    from raypath.components.serving.params import ServeParams
    from raypath.components.training.params import TrainingParams

    given = [argument for node in graph.nodes for argument in node.arguments]
    for each in given if nodes else []:
        if isinstance(each, TrainingParams) and each.workers > 1:
            kind = "GPU" if any(node.get("GPU") for node in nodes) else "CPU"
            room = (max if local_storage_only else sum)(int(node.get(kind, 0)) for node in nodes)
            kinds = f"{kind}s of one node" if local_storage_only else f"{kind}s"
            _enough(f"workers={each.workers}", each.workers, kinds, room)
        if isinstance(each, ServeParams):
            for name, kind, wanted in (("gpus", "GPU", each.gpus), ("cpus", "CPU", each.cpus)):
                room = sum(int(node.get(kind, 0) / wanted) for node in nodes) if wanted else max(each.replicas, 1)
                _enough(f"serve.{name}={wanted:g}", max(each.replicas, 1), "replicas of it", room)


def _enough(setting: str, wanted: int, what: str, room: int) -> None:
    if wanted > room:
        told = f"{setting}, and the cluster has room for {room} {what}; wanted {wanted}"
        raise UserError(told, fix="lower the setting, or add nodes")


def check_nodes(nodes: Collection[Mapping[str, Any]], store: Store, mlflow: str) -> bool:
    """Whether all nodes share the home. Raises UserError when one does not reach the store or MLflow.

    Without a store of their own, artifacts are at home, and then that has to be shared.
    """
    name = f"probe-{uuid.uuid4().hex}"
    marks = [folder / "attempts" / name for folder in {store.home, store.root}]
    for mark in marks:
        mark.touch()
    try:
        said = _ask(nodes, (str(store.home), store.address, name, mlflow))
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)
    found = {node: problem for node, (problem, _) in said.items() if problem}
    if found:
        node, problem = next(iter(found.items()))
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(f"node {node}{more}: {problem[0]}", fix=problem[1])
    return all(shared for _, shared in said.values())


def _ask(nodes: Collection[Mapping[str, Any]], arguments: tuple[str, ...]) -> dict[str, Any]:
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as At

    task = ray.remote(num_cpus=0, max_retries=1)(check_node)
    asked = {}
    for node in nodes:
        asked[task.options(scheduling_strategy=At(node["NodeID"], soft=False)).remote(*arguments)] = node
    ready, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS)
    if waiting:
        name = asked[waiting[0]]["NodeManagerAddress"]
        raise PlatformError(f"node {name} ran no task within {SECONDS:.0f} s", fix="check its Ray logs")
    try:
        return {asked[handle]["NodeManagerAddress"]: ray.get(handle) for handle in ready}
    except RayError as error:
        text = str(unwrap(error)).strip().splitlines()
        raise PlatformError(f"a node could not run our code: {text[-1][:300]}", fix="see the Ray logs") from None


def check_node(home: str, remote: str, mark: str, mlflow: str) -> tuple[tuple[str, str] | None, bool]:
    """On a node: (what is wrong and what to do, whether it sees the driver's home)."""
    problem = _store(home, remote, mark) or _mlflow(mlflow)
    return problem, (Path(home) / "attempts" / mark).exists()


def _store(home: str, remote: str, mark: str) -> tuple[str, str] | None:
    try:
        store = open_store(Path(home), remote)
    except RaypathError as error:
        return error.what, error.fix
    if "://" in remote:
        return None
    if not (store.root / "attempts" / mark).exists():
        where = f"{store.root} there is not the folder that the driver has"
        return where, "set -s ray.store=s3://BUCKET/FOLDER, or a folder that all nodes mount"
    return None if os.access(store.root, os.W_OK) else (f"{store.root} cannot be written", "let Ray's user write it")


def _mlflow(address: str) -> tuple[str, str] | None:
    from raypath.components.tracking.uploader import reachable

    if not address or reachable(address, timeout=5.0):
        return None
    return f"MLflow at {address} does not answer", "set -s ray.mlflow=http://HOST:PORT as the nodes reach it"
