"""A full disk while OpenVINO writes a graph: the error says so, which OpenVINO's own does not."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raypath.components.core.errors import StoreError
from raypath.components.inference.backends.openvino_runtime import import_openvino, save_graph

# Not imported here: openvino's import sends events unless Raypath's own import has come before.
pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="extra openvino")


@pytest.fixture
def graph() -> Any:
    openvino = import_openvino()
    ops = openvino.opset13
    given = ops.parameter([1, 300], np.float32)
    weights = ops.constant(np.random.default_rng(0).random((300, 300), np.float32))
    return openvino.Model([ops.matmul(given, weights, False, False)], [given])


def test_a_full_disk_is_named(graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graph.bin").symlink_to("/dev/full")
    with pytest.raises(RuntimeError) as caught:
        save_graph(graph, tmp_path / "graph.xml", False)
    assert not isinstance(caught.value, StoreError), "this disk has space"
    (tmp_path / "graph.bin").unlink(missing_ok=True)
    (tmp_path / "graph.bin").symlink_to("/dev/full")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_300_000))
    with pytest.raises(StoreError, match=f"no free disk space in {tmp_path}; free disk space"):
        save_graph(graph, tmp_path / "graph.xml", False)


def test_a_graph_is_written_with_its_weights(graph: Any, tmp_path: Path) -> None:
    save_graph(graph, tmp_path / "graph.xml", False)
    assert (tmp_path / "graph.bin").stat().st_size >= 4 * 300 * 300
