"""The limits of a Ray head's start."""

from __future__ import annotations

import inspect

import pytest

from raypath.deploy.local import ray_head


def test_a_node_that_registers_late_is_waited_for() -> None:
    from ray._private import node

    calls: list[tuple[str, str]] = []

    def get_node(address: str, name: str) -> str:
        calls.append((address, name))
        if len(calls) < 3:
            raise RuntimeError("not registered")
        return "registered"

    assert ray_head.wait_longer(get_node)("gcs", "node") == "registered"
    assert calls == [("gcs", "node")] * 3
    calls.clear()
    with pytest.raises(RuntimeError, match="not registered"):
        ray_head.wait_longer(get_node, 0.0)("gcs", "node")
    assert "ray._private.services.get_node(" in inspect.getsource(node.Node), "Ray calls the function that is wrapped"
