"""Nodes of a cluster that are alive, that come late, and that are lost with their steps; with a table of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components import Unavailable
from raypath.deploy.execution.ray_platform import RayTaskPlatform
from raypath.deploy.ray_cluster import platform
from raypath.deploy.ray_cluster.platform import RayClusterPlatform, alive
from raypath.deploy.store.store import Store


class Clock:
    """Time that passes in `sleep` alone."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(platform, "time", made)
    return made


def _nodes(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    import ray

    monkeypatch.setattr(ray, "nodes", answer)


def _node(name: str, is_alive: bool) -> dict[str, Any]:
    return {"NodeID": name, "NodeName": f"host-{name}", "Alive": is_alive, "Resources": {}}


def test_a_node_is_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    _nodes(monkeypatch, lambda: [_node("a", False), _node("b", clock.now >= 130)])
    assert [node["NodeID"] for node in alive()] == ["b"]
    assert clock.now == 130
    _nodes(monkeypatch, lambda: [_node("a", False)])
    with pytest.raises(Unavailable) as told:
        alive()
    assert str(told.value) == "the cluster has no living node; run the same command again once it has one"
    assert clock.now == 191, "a minute"


def test_steps_of_a_lost_node_end(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"a": True, "b": True}
    reads: list[float] = []

    def nodes() -> list[dict[str, Any]]:
        reads.append(clock.now)
        return [_node(name, is_alive) for name, is_alive in states.items()]

    _nodes(monkeypatch, nodes)
    cancelled: list[Any] = []
    monkeypatch.setattr(RayTaskPlatform, "poll", lambda *_: [])
    monkeypatch.setattr(RayClusterPlatform, "cancel", lambda _, handles: cancelled.extend(handles))
    cluster = RayClusterPlatform(tmp_path, Store(tmp_path))
    monkeypatch.setattr(cluster._progress, "fetch", lambda: None)
    cluster._node_of = {"one": "a", "two": "b"}
    assert cluster.poll(["one", "two"], 1.0) == []
    states["b"] = False
    clock.now += 4.9
    assert cluster.poll(["one", "two"], 1.0) == []
    assert reads == [100.0], "the table is read every five seconds"
    clock.now += 0.1
    assert cluster.poll(["one", "two"], 1.0) == []
    clock.now += 9.9
    assert cluster.poll(["one", "two"], 1.0) == []
    clock.now += 5.0
    [(handle, outcome)] = cluster.poll(["one", "two"], 1.0)
    assert (handle, outcome.what, cancelled) == ("two", "node host-b was lost", ["two"])
    assert cluster._node_of == {"one": "a"}


def test_urls_are_those_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = RayClusterPlatform(tmp_path, Store(tmp_path))
    for name in ("MLFLOW_TRACKING_URI", "RAYPATH_SERVE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert (cluster.mlflow(), cluster.serve_url(), cluster.public_url()) == ("", "", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m:1")
    monkeypatch.setenv("RAYPATH_SERVE_URL", "http://s:2")
    assert (cluster.mlflow(), cluster.serve_url()) == ("http://m:1", "http://s:2")
    tracking = cluster.tracking("flow", "r-1")
    spool = str(tmp_path / "spool")
    assert (tracking.uri, tracking.experiment, tracking.parent, tracking.spool) == ("http://m:1", "flow", "r-1", spool)
