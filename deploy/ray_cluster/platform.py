"""Platform for an existing Ray cluster: place each step on a suitable node and detect lost nodes."""

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
from raypath.components.registry.signing.keys import PRIVATE, ensure_key
from raypath.deploy.execution.ray_platform import RayTaskPlatform
from raypath.deploy.execution.step import Outcome, StepSpec, load_component
from raypath.deploy.ray_cluster.preflight import check_nodes
from raypath.deploy.ray_cluster.progress import ProgressCollector, run_and_report, run_with_own_home
from raypath.deploy.store.store import Store

SERVE_URL = "RAYPATH_SERVE_URL"
"""Environment variable with the URL of the cluster's Ray Serve; default http://127.0.0.1:8000 on the head."""
_HEAD = "node:__internal_head__"
NODE_TIMEOUT = 60.0
"""Seconds to wait for a node where none is alive."""
NODE_POLL_INTERVAL = 5.0
"""Seconds between two reads of the node table."""
NODE_LOST_AFTER = 10.0
"""Seconds after which the steps of a dead node are cancelled; of a crashed node Ray itself reports them at once."""


class RayClusterPlatform(RayTaskPlatform):
    """Steps as Ray tasks on an existing cluster; artifacts in a store that all its nodes reach."""

    def __init__(self, home: Path, store: Store) -> None:
        super().__init__(home)
        self.store = store
        self._node_of: dict[Any, str] = {}
        self._progress = ProgressCollector(home)
        self._polled = 0.0
        self._dead: dict[str, float] = {}

    def mlflow(self) -> str:
        """URL of the MLflow server in the job's environment."""
        return os.environ.get("MLFLOW_TRACKING_URI", "")

    def serve_url(self) -> str:
        """URL of the cluster's endpoints; "" leaves it to Ray Serve."""
        return os.environ.get(SERVE_URL, "")

    def public_url(self) -> str:
        """Empty: the proxy in front of a cluster is not managed by Raypath."""
        return ""

    def start(self) -> None:
        """Connect, and check that every node reaches the store and MLflow before the first step runs."""
        if self._remote is not None:
            return
        import ray

        ray.init("auto", namespace="raypath", log_to_driver=False, logging_level=logging.WARNING)
        shared = check_nodes(alive(), self.store, self.mlflow())
        if shared and not os.environ.get(PRIVATE):
            ensure_key(self.home / "signing")
        self.connected(run_and_report if shared else run_with_own_home)

    def heal(self) -> None:
        """No action: the cluster is not managed by Raypath, and a lost node's steps run on another one."""

    def submit(self, spec: StepSpec) -> Any:
        """Submit a step to a suitable node; if that node dies first, Ray takes any other."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = alive()
        node = choose(nodes, list(self._node_of.values()), load_component(spec.component).output is Endpoint)
        cores, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        everywhere = sum(int(each["Resources"].get("CPU", 0)) for each in nodes)
        here = dataclasses.replace(spec, workers=max(1, cores), cluster_workers=everywhere, gpus=gpus)
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        handle = self._remote.options(name=f"step:{spec.step}", scheduling_strategy=strategy).remote(here)
        self._node_of[handle] = node["NodeID"]
        return handle

    def run(self, spec: StepSpec) -> Outcome:
        """Run one step on a suitable node and wait for its outcome."""
        handle = self.submit(spec)
        while not (ended := self.poll([handle], timeout=1.0)):
            pass
        return ended[0][1]

    def poll(self, handles: Collection[Any], timeout: float) -> list[tuple[Any, Outcome]]:
        """Tasks that have ended; the progress of the others is collected for the watcher."""
        ended = super().poll(handles, timeout) or self._lost(handles)
        for handle, _ in ended:
            self._node_of.pop(handle, None)
        self._progress.fetch()
        return ended

    def _lost(self, handles: Collection[Any]) -> list[tuple[Any, Outcome]]:
        """Cancel the steps of dead nodes. Ray itself waits about seven minutes for a node that is cut off."""
        import ray

        now = time.monotonic()
        if now - self._polled < NODE_POLL_INTERVAL:
            return []
        self._polled = now
        gone = {node["NodeID"]: node["NodeName"] for node in ray.nodes() if not node["Alive"]}
        self._dead = {node: self._dead.get(node, now) for node in gone}
        late = [each for each in handles if now - self._dead.get(self._node_of[each], now) >= NODE_LOST_AFTER]
        self.cancel(late)
        return [(each, _unreachable(gone[self._node_of[each]])) for each in late]


def _unreachable(node: str) -> Outcome:
    return Outcome(error=Unavailable.__name__, what=f"node {node} was lost", fix="run the same command again")


def alive() -> list[Mapping[str, Any]]:
    """The living nodes of the cluster. Raises Unavailable after a minute without one."""
    import ray

    end = time.monotonic() + NODE_TIMEOUT
    while not (nodes := [node for node in ray.nodes() if node["Alive"]]):
        if time.monotonic() > end:
            raise Unavailable("the cluster has no living node", fix="run the same command again once it has one")
        time.sleep(1)
    return nodes


def choose(nodes: Collection[Mapping[str, Any]], busy: Collection[str], head: bool) -> Mapping[str, Any]:
    """Choose the node for a step.

    A step that serves runs on the head, where its endpoint receives requests. Other steps prefer a node with GPUs, then
    an idle one, then one that is not the head, then the one with the most CPUs.
    """

    def rank(node: Mapping[str, Any]) -> tuple[Any, ...]:
        have, is_head = node["Resources"], _HEAD in node["Resources"]
        if head:
            return (not is_head, node["NodeID"])
        load = list(busy).count(node["NodeID"])
        return (-(have.get("GPU", 0) > 0), load, is_head, -have.get("CPU", 0), node["NodeID"])

    return min(nodes, key=rank)
