"""Each precision answers like float32, as far as its numbers reach; auto takes only what fits the machine."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from raypath.components import DataError, Model, ParamsError
from raypath.components.core.files import file_digest
from raypath.components.inference.backends.loader import unsupported_reason
from raypath.components.inference.backends.onnx_export import export, quantize_onnx
from raypath.components.inference.backends.onnx_runtime import FILES
from raypath.components.inference.backends.precision_config import (
    FLAGS,
    Choice,
    machine,
    read_choice,
    usable_precision,
    write_choice,
)
from raypath.components.inference.engine import Engine, resolve_precision
from raypath.components.models.metadata import read_metadata
from raypath.components.tasks.catalog import load_task
from tests.tiny_classifier import tiny_classifier

TOKENS = [[101, *[2000 + 37 * k % 900 for k in range(n)], 102] for n in (1, 30, 4, 17, 4, 9)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def onnx(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder with both ONNX files."""
    for name in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    folder = tmp_path_factory.mktemp("onnx") / "model"
    shutil.copytree(model.uri, folder)
    export(folder, load_task(read_metadata(folder)), folder)
    quantize_onnx(folder)
    return folder


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    shutil.copytree(model.uri, tmp_path / "model")
    return tmp_path / "model"


def apart(folder: Path, precision: str) -> float:
    """The largest difference of its logits from float32's, as a share of their spread."""
    exact = Engine(folder, precision="fp32").record(TOKENS)
    return float(np.abs(Engine(folder, precision=precision).record(TOKENS) - exact).max() / exact.std())


@pytest.mark.parametrize(("precision", "most"), [("bf16", 0.1), ("int8", 0.3)])
def test_torch_with_fewer_bits_is_near(folder: Path, precision: str, most: float) -> None:
    assert 0 < apart(folder, precision) < most


@pytest.mark.parametrize(("precision", "most"), [("onnx", 1e-4), ("onnx-int8", 0.3)])
def test_onnx_runtime_is_near(onnx: Path, precision: str, most: float) -> None:
    assert apart(onnx, precision) < most
    assert Engine(onnx, precision=precision).record([[]]).shape == (1, 3)


def test_the_head_of_int8_stays_in_float32(folder: Path) -> None:
    model = Engine(folder, precision="int8").model
    assert type(model.classifier).__name__ == "Linear"
    assert "quantized" in type(model.bert.encoder.layer[0].attention.self.query).__module__


def test_the_top_layer_of_a_classifier_reads_one_token(folder: Path) -> None:
    engine = Engine(folder)  # restores the layers of its model when it ends
    bottom, top = engine.model.bert.encoder.layer
    assert "forward" in vars(top), "an instance with a forward of its own"
    assert "forward" not in vars(bottom)


def test_what_a_model_cannot_have_is_told(folder: Path) -> None:
    task = load_task(read_metadata(folder))
    assert unsupported_reason("int8", task, "bert") == "" == unsupported_reason("bf16", task, "llama")
    assert unsupported_reason("int8", task, "llama") == "not for models of type llama"
    with pytest.raises(ParamsError, match="for the CPU"):
        Engine(folder, device="cuda", precision="int8")


def test_a_missing_or_broken_file_is_told(folder: Path) -> None:
    with pytest.raises(DataError, match=r"has no model\.onnx"):
        Engine(folder, precision="onnx")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="does not open"):
        Engine(folder, precision="onnx")


def test_auto_follows_the_choice_on_a_machine_like_it(folder: Path) -> None:
    plain, here = resolve_precision(folder, "auto", "cpu"), machine("cpu", 1)
    assert plain == resolve_precision(folder, "plain", "cpu")
    measured = {"table": ({"precision": "int8"},)}
    write_choice(folder, Choice.model_validate({"precision": "int8", "machine": here, **measured}))
    assert Engine(folder).precision == "int8"
    assert resolve_precision(folder, "plain", "cpu") == plain
    assert usable_precision(folder, "cuda") is None
    other = here.model_copy(update={"flags": ("neon",)})
    write_choice(folder, Choice.model_validate({"precision": "int8", "machine": other, **measured}))
    assert Engine(folder).precision == plain
    write_choice(folder, Choice(precision="int8", machine=other))
    assert Engine(folder).precision == "int8", "what was given, not measured, holds anywhere"
    (folder / "precision.json").write_text("{")
    assert Engine(folder).precision == plain


def test_a_machine_is_told_by_features_that_torch_knows() -> None:
    capabilities = torch.cpu.get_capabilities()
    if capabilities["architecture"] != "x86_64":
        pytest.skip("the names of x86")
    assert {name for name in FLAGS if name.startswith(("avx", "amx"))} <= capabilities.keys()
    assert set(machine("cpu", 1).flags) == {name for name in FLAGS if capabilities.get(name)}


def test_auto_falls_back_without_the_file_that_was_registered(onnx: Path, folder: Path) -> None:
    name = FILES["onnx"]
    shutil.copyfile(onnx / name, folder / name)
    choice = Choice(precision="onnx", machine=machine("cpu", 1), files={name: file_digest(folder / name)})
    write_choice(folder, choice)
    assert read_choice(folder) == choice
    assert Engine(folder).precision == "onnx"
    with open(folder / name, "ab") as file:
        file.write(b"x")
    assert usable_precision(folder, "cpu") is None
    (folder / name).unlink()
    assert Engine(folder).precision == resolve_precision(folder, "plain", "cpu")


def test_without_torchs_quantisation_onnx_runtime_is_the_way_to_int8(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, task = machine("cpu", 1), load_task(read_metadata(folder))
    write_choice(folder, Choice(precision="int8", machine=here))
    assert usable_precision(folder, "cpu") == "int8"
    monkeypatch.setitem(sys.modules, "torch.ao.quantization", None)
    assert "onnx-int8 needs none" in unsupported_reason("int8", task, "bert")
    assert "torch.ao" not in unsupported_reason("onnx-int8", task, "bert")
    assert usable_precision(folder, "cpu") is None
    assert Engine(folder).precision == resolve_precision(folder, "plain", "cpu")
    with pytest.raises(ParamsError, match=r"int8 needs torch\.ao\.quantization"):
        Engine(folder, precision="int8")
