"""The engine on a GPU: the answers of the CPU, the GPU taken where there is one, several threads at a time."""

from __future__ import annotations

import importlib.util
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from raypath.components import Model
from raypath.components.inference.backends.openvino_export import export
from raypath.components.inference.engine import Engine
from raypath.components.inference.precision_selection import prepare
from raypath.components.models.metadata import read_metadata
from raypath.components.tasks.catalog import load_task
from tests.tiny_classifier import tiny_classifier

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TOKENS = [[101, *[2000 + 37 * k % 900 for k in range(n)], 102] for n in (1, 30, 4, 17, 4, 9)] + [[]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("model"))


def test_in_fp32_it_answers_as_the_cpu_does(model: Model) -> None:
    exact = Engine(Path(model.uri), device="cpu", precision="fp32").record(TOKENS)
    engine = Engine(Path(model.uri), precision="fp32")
    assert engine.device == "cuda"
    assert next(engine.model.parameters()).is_cuda
    assert engine.record(TOKENS) == pytest.approx(exact, abs=1e-3)


def test_in_bf16_it_is_near(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYPATH_PRECISION")
    exact = Engine(Path(model.uri), device="cpu", precision="fp32").record(TOKENS)
    engine = Engine(Path(model.uri))
    assert (engine.device, engine.precision) == ("cuda", "bf16")
    apart = np.abs(engine.record(TOKENS) - exact).max() / exact.std()
    assert 0 < apart < 0.1


def test_threads_may_ask_at_the_same_time(model: Model) -> None:
    engine = Engine(Path(model.uri), precision="fp32")
    wanted = engine.record(TOKENS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: engine.record(TOKENS), range(40)):
            assert found == pytest.approx(wanted, abs=1e-5)


def test_nothing_is_measured_for_a_cpu_that_will_not_serve(model: Model, tmp_path: Path) -> None:
    """OpenVINO is for the CPU; here the GPU answers."""
    assert prepare(Path(model.uri), tmp_path / "out", None, 1, "auto", 0.005) is None


def test_a_precision_for_the_cpu_is_served_by_the_cpu(model: Model, tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    folder = tmp_path / "model"
    shutil.copytree(model.uri, folder)
    export(folder, load_task(read_metadata(folder)), folder)
    assert Engine(folder, precision="openvino").device == "cpu"
