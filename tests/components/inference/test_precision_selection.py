"""The fastest precision that is as good wins; the figures are kept with the model."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from raypath.components import Model, ParamsError
from raypath.components.inference import precision_selection as precision
from raypath.components.inference.backends.precision_config import (
    Candidate,
    Choice,
    machine,
    read_choice,
    usable_precision,
    write_choice,
)
from raypath.components.inference.batch.scoring import sample_rows
from raypath.components.inference.engine import Engine
from raypath.components.inference.precision_selection import choose, measure, prepare
from tests.tiny_classifier import tiny_classifier, tiny_dataset

WITH_ONNX = all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnx", "onnxscript"))


def line(name: str, speed: float, f1: float, left_out: str = "") -> Candidate:
    metrics = {} if left_out else {"macro_f1": f1}
    return Candidate.model_validate(
        {"precision": name, "rows_per_second": speed, "metrics": metrics, "left_out": left_out}
    )


FP32, SLOWER = line("fp32", 100, 0.800), line("bf16", 60, 0.900)
INT8, WORSE = line("int8", 150, 0.796), line("onnx-int8", 300, 0.79)
GONE = line("onnx", 0, 0, "onnxruntime is not installed (extra onnx)")


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ((FP32,), "fp32"),
        ((FP32, SLOWER, INT8, GONE, WORSE), "int8"),
        ((FP32, SLOWER, GONE, WORSE), "fp32"),
        ((FP32, line("int8", 104, 0.8)), "fp32"),
        ((FP32, line("int8", 105, 0.8)), "int8"),
        ((FP32, line("int8", 106, 0.8), line("onnx", 200, 0.795), line("bf16", 201, 0.7949)), "onnx"),
        ((FP32, line("int8", 110, 0.85), line("onnx", 120, 0.8)), "onnx"),
    ],
)
def test_the_fastest_within_the_tolerance(table: tuple[Candidate, ...], wanted: str) -> None:
    assert choose(table, "macro_f1", 0.005) == wanted


def test_of_an_error_less_is_better() -> None:
    table = (FP32, line("int8", 200, 0.806), line("onnx", 150, 0.7))
    assert choose(table, "macro_f1", 0.005, lower=True) == "onnx"
    assert choose(table, "macro_f1", 0.01, lower=True) == "int8"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return tiny_classifier(tmp_path / "source")


def test_each_is_measured(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "ROUND_SECONDS", 0.1)
    folder = tmp_path / "model"
    shutil.copytree(model.uri, folder)
    table = {one.precision: one for one in measure(folder, tiny_dataset(tmp_path / "valid", model), 1)}
    assert list(table) == ["fp32", "bf16", "int8", "onnx", "onnx-int8"]
    assert set(table["fp32"].metrics) == {"macro_f1", "log_loss"} == set(table["int8"].metrics)
    assert table["fp32"].difference == 0 < table["int8"].difference
    assert table["int8"].rows_per_second > 0 < table["int8"].load_seconds
    assert bool(table["onnx"].left_out) is not WITH_ONNX
    assert (folder / "model.onnx").exists() is WITH_ONNX


def test_the_choice_goes_with_the_folder(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_dataset(tmp_path / "valid", model, rows=40)
    monkeypatch.setattr(precision, "ROUND_SECONDS", 0.1)
    # So that the fastest of those that were measured wins, whichever that is here.
    monkeypatch.setattr(precision, "GAIN", 0.0)
    choice = prepare(Path(model.uri), tmp_path / "model", data, 1, "auto", 1.0, "macro_f1")
    assert choice is not None
    fastest = max(choice.table, key=lambda line: line.rows_per_second)
    assert len(choice.table) == 5
    assert (choice.precision, choice.rows_per_second) == (fastest.precision, fastest.rows_per_second)
    assert read_choice(tmp_path / "model") == choice
    assert Engine(tmp_path / "model").precision == fastest.precision
    kept = {path.name for path in (tmp_path / "model").glob("*.onnx")}
    assert kept == set(choice.files), "of the exports only what it answers with"
    monkeypatch.setattr(precision, "measure", None)
    again = prepare(Path(model.uri), tmp_path / "model", data, 1, "auto", 0.005, "macro_f1")
    assert again == choice, "what an earlier attempt finished is not measured again"
    assert not (Path(model.uri) / "precision.json").exists()


def test_nothing_to_choose(model: Model, tmp_path: Path) -> None:
    assert prepare(Path(model.uri), tmp_path / "model", None, 1, "auto", 0.005) is None
    assert not (tmp_path / "model").exists()


def test_a_given_precision_is_not_measured(model: Model, tmp_path: Path) -> None:
    choice = prepare(Path(model.uri), tmp_path / "model", None, 1, "int8", 0.005)
    assert choice is not None
    assert (choice.precision, choice.table, Engine(tmp_path / "model").precision) == ("int8", (), "int8")
    if not WITH_ONNX:
        with pytest.raises(ParamsError, match="extra onnx"):
            prepare(Path(model.uri), tmp_path / "other", None, 1, "onnx", 0.005)


def test_bf16_that_the_environment_disables_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_choice(tmp_path, Choice(precision="bf16", machine=machine("cpu", 1)))
    for value, wanted in (("fp32", None), ("", "bf16")):
        monkeypatch.setenv("RAYPATH_PRECISION", value)
        assert usable_precision(tmp_path, "cpu") == wanted


def test_a_given_onnx_brings_its_file(model: Model, tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    choice = prepare(Path(model.uri), tmp_path / "model", None, 1, "onnx-int8", 0.005)
    assert choice is not None
    assert list(choice.files) == ["model.int8.onnx"]
    assert not (tmp_path / "model" / "model.onnx").exists()
    assert Engine(tmp_path / "model").precision == "onnx-int8"


@pytest.mark.parametrize("most", [1, 7, 200, 1000])
def test_rows_are_spread_over_the_part(model: Model, tmp_path: Path, most: int) -> None:
    data = tiny_dataset(tmp_path / "valid", model, rows=200)
    tokens, targets = sample_rows(Path(model.uri), data, most)
    everything, _ = sample_rows(Path(model.uri), data, 200)
    assert len(tokens) == len(targets) == min(most, 200)
    places = np.linspace(0, 199, min(most, 200)).astype(int)
    assert tokens == [everything[k] for k in places]
