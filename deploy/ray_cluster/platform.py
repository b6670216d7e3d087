"""The platform of a Ray cluster that is there already: nothing is started, steps go to the nodes that suit them."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Endpoint
from raypath.components.core.errors import Unavailable
from raypath.deploy.execution.ray_platform import RayTaskPlatform
from raypath.deploy.execution.step import Outcome, StepSpec, load_component
from raypath.deploy.ray_cluster.preflight import check_nodes
from raypath.deploy.ray_cluster.progress import ProgressCollector, run_and_report, run_with_own_home
from raypath.deploy.store.store import Store

SERVE_URL = "RAYPATH_SERVE_URL"
"""Names in the environment where Ray Serve of the cluster answers; by default http://127.0.0.1:8000 on its head."""
_HEAD = "node:__internal_head__"
WAIT = 60.0
"""Seconds to wait for a node to come back when none is left."""
LOOK = 5.0
"""Seconds between two looks at which nodes are left."""
LOST = 10.0
"""Seconds that a node has to be dead before its steps are given up; of one that was killed Ray tells at once."""


class RayClusterPlatform(RayTaskPlatform):
    """Steps as Ray tasks on an existing cluster; artifacts through a store that all its nodes reach."""

    def __init__(self, home: Path, store: Store) -> None:
        super().__init__(home)
        self.store = store
        self._at: dict[Any, str] = {}
        self._progress = ProgressCollector(home)
        self._looked = 0.0
        self._dead: dict[str, float] = {}

    def mlflow(self) -> str:
        """The server that the job was given."""
        return os.environ.get("MLFLOW_TRACKING_URI", "")

    def serve_url(self) -> str:
        """Where an endpoint of the cluster answers; "" leaves it to Ray Serve."""
        return os.environ.get(SERVE_URL, "")

    def public_url(self) -> str:
        """What answers other machines stands before the cluster and is not ours."""
        return ""

    def start(self) -> None:
        """Connect, and check that every node reaches the store and MLflow before the first step runs."""
        if self._remote is not None:
            return
        import ray

        ray.init("auto", namespace="raypath", log_to_driver=False, logging_level=logging.WARNING)
        shared = check_nodes(alive(), self.store, self.mlflow())
        self.connected(run_and_report if shared else run_with_own_home)

    def heal(self) -> None:
        """Nothing of the cluster is ours to start; what a lost node did is done on another."""

    def submit(self, spec: StepSpec) -> Any:
        """Begin a step on the node that suits it; if that one dies first, on any."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = choose(alive(), list(self._at.values()), load_component(spec.component).output is Endpoint)
        cores, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        here = dataclasses.replace(spec, workers=max(1, cores), gpus=gpus)
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        handle = self._remote.options(name=f"step:{spec.step}", scheduling_strategy=strategy).remote(here)
        self._at[handle] = node["NodeID"]
        return handle

    def run(self, spec: StepSpec) -> Outcome:
        """Do one step on the node that suits it, and wait for its end."""
        handle = self.submit(spec)
        while not (ended := self.poll([handle], timeout=1.0)):
            pass
        return ended[0][1]

    def poll(self, handles: Collection[Any], timeout: float) -> list[tuple[Any, Outcome]]:
        """Tasks that have ended; what the others have done is put where the watcher looks."""
        ended = super().poll(handles, timeout) or self._lost(handles)
        for handle, _ in ended:
            self._at.pop(handle, None)
        self._progress.fetch()
        return ended

    def _lost(self, handles: Collection[Any]) -> list[tuple[Any, Outcome]]:
        """Steps of nodes that are dead; for those on one whose cable was pulled Ray would wait for seven minutes."""
        import ray

        now = time.monotonic()
        if now - self._looked < LOOK:
            return []
        self._looked = now
        gone = {node["NodeID"]: node["NodeName"] for node in ray.nodes() if not node["Alive"]}
        self._dead = {node: self._dead.get(node, now) for node in gone}
        late = [each for each in handles if now - self._dead.get(self._at[each], now) >= LOST]
        self.cancel(late)
        return [(each, _unreachable(gone[self._at[each]])) for each in late]


def _unreachable(node: str) -> Outcome:
    return Outcome(error=Unavailable.__name__, what=f"node {node} was lost", fix="run the same line again")


def alive() -> list[Mapping[str, Any]]:
    """The nodes of the cluster. Raises Unavailable when none is there for a minute."""
    import ray

    end = time.monotonic() + WAIT
    while not (nodes := [node for node in ray.nodes() if node["Alive"]]):
        if time.monotonic() > end:
            raise Unavailable("the cluster has no living node", fix="run the same line again once it has")
        time.sleep(1)
    return nodes


def choose(nodes: Collection[Mapping[str, Any]], busy: Collection[str], head: bool) -> Mapping[str, Any]:
    """The node for a step: the head for what serves, since its endpoint is asked there; else one with GPUs, then one
    that runs no other step, then one that is not the head, then the one with the most cores."""

    def rank(node: Mapping[str, Any]) -> tuple[Any, ...]:
        have, is_head = node["Resources"], _HEAD in node["Resources"]
        if head:
            return (not is_head, node["NodeID"])
        load = list(busy).count(node["NodeID"])
        return (-(have.get("GPU", 0) > 0), load, is_head, -have.get("CPU", 0), node["NodeID"])

    return min(nodes, key=rank)
