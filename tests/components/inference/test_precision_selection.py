"""The fastest precision that is as good wins; the figures are kept with the model."""

import importlib.util
import shutil
import sys
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
from raypath.components.inference.precision_selection import Rows, choose, measure, prepare
from tests.tiny_classifier import tiny_classifier, tiny_dataset

WITH_OPENVINO = importlib.util.find_spec("openvino") is not None


def line(name: str, speed: float, f1: float, left_out: str = "") -> Candidate:
    metrics = {} if left_out else {"macro_f1": f1}
    return Candidate.model_validate(
        {"precision": name, "rows_per_second": speed, "metrics": metrics, "left_out": left_out}
    )


FP32, SLOWER = line("fp32", 100, 0.800), line("bf16", 60, 0.900)
INT8, WORSE = line("openvino-int8", 150, 0.796), line("openvino", 300, 0.79)
GONE = line("openvino", 0, 0, "openvino is not installed (extra openvino)")


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ((FP32,), "fp32"),
        ((FP32, SLOWER, INT8, GONE, WORSE), "openvino-int8"),
        ((FP32, SLOWER, GONE, WORSE), "fp32"),
        ((FP32, line("openvino-int8", 104, 0.8)), "fp32"),
        ((FP32, line("openvino-int8", 105, 0.8)), "openvino-int8"),
        ((FP32, line("openvino-int8", 106, 0.8), line("openvino", 200, 0.795), line("bf16", 201, 0.7949)), "openvino"),
        ((FP32, line("openvino-int8", 110, 0.85), line("openvino", 120, 0.8)), "openvino"),
    ],
)
def test_the_fastest_within_the_tolerance(table: tuple[Candidate, ...], wanted: str) -> None:
    assert choose(table, "macro_f1", 0.005) == wanted


def test_of_an_error_less_is_better() -> None:
    table = (FP32, line("openvino-int8", 200, 0.806), line("openvino", 150, 0.7))
    assert choose(table, "macro_f1", 0.005, lower=True) == "openvino"
    assert choose(table, "macro_f1", 0.01, lower=True) == "openvino-int8"


@pytest.mark.parametrize(
    ("rows", "different", "wanted"),
    [(1000, 5, "openvino-int8"), (1000, 6, "openvino"), (40, 1, "openvino-int8"), (40, 2, "openvino")],
)
def test_other_predictions_than_fp32s_are_bounded(rows: int, different: int, wanted: str) -> None:
    int8 = line("openvino-int8", 300, 0.8).model_copy(update={"rows": rows, "different": different})
    assert choose((FP32, line("openvino", 150, 0.8), int8), "macro_f1", 0.005) == wanted


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return tiny_classifier(tmp_path / "source")


def test_each_is_measured(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "ROUND_SECONDS", 0.1)
    folder = tmp_path / "model"
    shutil.copytree(model.uri, folder)
    table = {one.precision: one for one in measure(folder, tiny_dataset(tmp_path / "valid", model), 1)}
    assert list(table) == ["fp32", "bf16", "openvino", "openvino-int8"]
    assert set(table["fp32"].metrics) == {"macro_f1", "log_loss"}
    assert table["fp32"].difference == 0 == table["fp32"].different
    assert bool(table["openvino"].left_out) is not WITH_OPENVINO
    assert (folder / "openvino.int8.bin").exists() is WITH_OPENVINO
    if WITH_OPENVINO:
        int8 = table["openvino-int8"]
        assert set(int8.metrics) == {"macro_f1", "log_loss"}
        assert int8.difference > 0 < int8.rows_per_second
        assert int8.load_seconds > 0
        assert int8.rows == 200


def test_the_choice_goes_with_the_folder(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_dataset(tmp_path / "valid", model, rows=40)
    monkeypatch.setattr(precision, "ROUND_SECONDS", 0.1)
    # So that the fastest of those that were measured wins, whichever that is here.
    monkeypatch.setattr(precision, "GAIN", 0.0)
    choice = prepare(Path(model.uri), tmp_path / "model", data, 1, "auto", 1.0, "macro_f1")
    assert choice is not None
    fastest = max(choice.table, key=lambda line: line.rows_per_second)
    assert len(choice.table) == 4
    assert (choice.precision, choice.rows_per_second) == (fastest.precision, fastest.rows_per_second)
    assert read_choice(tmp_path / "model") == choice
    assert Engine(tmp_path / "model").precision == fastest.precision
    kept = {path.name for path in (tmp_path / "model").glob("openvino*")}
    assert kept == set(choice.files), "of the exports only what it answers with"
    monkeypatch.setattr(precision, "measure", None)
    again = prepare(Path(model.uri), tmp_path / "model", data, 1, "auto", 0.005, "macro_f1")
    assert again == choice, "what an earlier attempt finished is not measured again"
    assert not (Path(model.uri) / "precision.json").exists()


def test_nothing_to_choose(model: Model, tmp_path: Path) -> None:
    assert prepare(Path(model.uri), tmp_path / "model", None, 1, "auto", 0.005) is None
    assert not (tmp_path / "model").exists()


def test_a_given_precision_is_not_measured(model: Model, tmp_path: Path) -> None:
    choice = prepare(Path(model.uri), tmp_path / "model", None, 1, "fp32", 0.005)
    assert choice is not None
    assert (choice.precision, choice.table, Engine(tmp_path / "model").precision) == ("fp32", (), "fp32")


def test_bf16_that_the_environment_disables_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_choice(tmp_path, Choice(precision="bf16", machine=machine("cpu", 1)))
    for value, wanted in (("fp32", None), ("", "bf16")):
        monkeypatch.setenv("RAYPATH_PRECISION", value)
        assert usable_precision(tmp_path, "cpu") == wanted


def test_a_given_int8_brings_its_files(model: Model, tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    data = tiny_dataset(tmp_path / "valid", model, rows=40)
    choice = prepare(Path(model.uri), tmp_path / "model", data, 1, "openvino-int8", 0.005)
    assert choice is not None
    assert sorted(choice.files) == sorted(path.name for path in (tmp_path / "model").glob("openvino*"))
    assert Engine(tmp_path / "model").precision == "openvino-int8"
    with pytest.raises(ParamsError, match="needs rows of the validation split to calibrate"):
        prepare(Path(model.uri), tmp_path / "other", None, 1, "openvino-int8", 0.005)


def test_without_openvino_a_given_precision_says_what_to_install(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ParamsError, match=r"not available: openvino is not installed \(extra openvino\)"):
        prepare(Path(model.uri), tmp_path / "model", None, 1, "openvino", 0.005)


def test_rows_that_calibrate_are_not_measured(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_dataset(tmp_path / "valid", model, rows=200)
    few = Rows.sample(Path(model.uri), data)
    assert few.calibration == few.tokens
    monkeypatch.setattr(precision, "CALIBRATION_ROWS", 20)
    rows = Rows.sample(Path(model.uri), data)
    everything, targets = sample_rows(Path(model.uri), data, 200)
    places = np.linspace(0, 199, 20).astype(int)
    assert rows.calibration == [everything[k] for k in places]
    others = np.setdiff1d(np.arange(200), places)
    assert rows.tokens == [everything[k] for k in others]
    np.testing.assert_array_equal(rows.targets, targets[others])


@pytest.mark.parametrize("most", [1, 7, 200, 1000])
def test_rows_are_spread_over_the_part(model: Model, tmp_path: Path, most: int) -> None:
    data = tiny_dataset(tmp_path / "valid", model, rows=200)
    tokens, targets = sample_rows(Path(model.uri), data, most)
    everything, _ = sample_rows(Path(model.uri), data, 200)
    assert len(tokens) == len(targets) == min(most, 200)
    places = np.linspace(0, 199, min(most, 200)).astype(int)
    assert tokens == [everything[k] for k in places]
