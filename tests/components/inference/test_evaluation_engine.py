"""Many rows are evaluated by OpenVINO where it is installed and converts the model, a few by PyTorch."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from raypath.components.inference import evaluation_engine as module
from raypath.components.inference.backends.openvino_export import ExportError
from raypath.components.inference.engine import Engine, resolve_precision
from raypath.components.inference.evaluation_engine import EXPORT_ROWS, evaluation_engine
from tests.tiny_classifier import tiny_classifier

TOKENS = [[101, *[2000 + 37 * k % 900 for k in range(n)], 102] for n in (1, 30, 4, 17, 4, 9)] + [[]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(tiny_classifier(tmp_path / "model").uri)


def test_many_rows_are_evaluated_by_openvino(folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    before = sorted(path.name for path in folder.iterdir())
    engine = evaluation_engine(folder, 2, EXPORT_ROWS, tmp_path / "scratch")
    assert (engine.precision, engine.parallel) == ("openvino", 2)
    exact = Engine(folder, precision="fp32").record(TOKENS)
    assert np.abs(engine.record(TOKENS, seed=0) - exact).max() < 0.1 * exact.std()
    again = evaluation_engine(folder, 1, EXPORT_ROWS, tmp_path / "scratch")
    np.testing.assert_array_equal(again.record(TOKENS, seed=0), engine.record(TOKENS, seed=0))
    assert sorted(path.name for path in folder.iterdir()) == before


def test_few_rows_and_a_machine_without_openvino_use_pytorch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = resolve_precision(folder, "plain", "cpu")
    assert evaluation_engine(folder, 1, EXPORT_ROWS - 1, tmp_path / "scratch").precision == plain
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert evaluation_engine(folder, 1, EXPORT_ROWS, tmp_path / "scratch").precision == plain
    assert not (tmp_path / "scratch").exists()


def test_a_model_that_is_not_converted_is_evaluated_by_pytorch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")

    def failing(*_: object) -> None:
        raise ExportError("its outputs differ from PyTorch's")

    monkeypatch.setattr(module, "export", failing)
    engine = evaluation_engine(folder, 1, EXPORT_ROWS, tmp_path / "scratch")
    assert engine.precision == resolve_precision(folder, "plain", "cpu")
    assert caplog.messages == [
        "OpenVINO does not convert the model (its outputs differ from PyTorch's); PyTorch evaluates it"
    ]
