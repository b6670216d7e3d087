"""Each precision answers like float32, as far as its numbers reach; auto takes only what fits the machine."""

import importlib.util
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from raypath.components import DataError, Model, ParamsError
from raypath.components.core.files import file_digest
from raypath.components.inference.backends.loader import unsupported_reason
from raypath.components.inference.backends.openvino_export import ExportError, export, quantize
from raypath.components.inference.backends.openvino_runtime import FILES
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
def exported(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder with the files of OpenVINO."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    folder = tmp_path_factory.mktemp("openvino") / "model"
    shutil.copytree(model.uri, folder)
    export(folder, load_task(read_metadata(folder)), folder)
    quantize(folder, TOKENS * 10, 1, 1.0)
    return folder


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    shutil.copytree(model.uri, tmp_path / "model")
    return tmp_path / "model"


def apart(folder: Path, precision: str) -> float:
    """The largest difference of its logits from float32's, as a share of their spread."""
    exact = Engine(folder, precision="fp32").record(TOKENS)
    return float(np.abs(Engine(folder, precision=precision).record(TOKENS) - exact).max() / exact.std())


def test_bf16_is_near(folder: Path) -> None:
    assert 0 < apart(folder, "bf16") < 0.1


@pytest.mark.parametrize(("precision", "most"), [("openvino", 0.1), ("openvino-int8", 0.3)])
def test_openvino_is_near(exported: Path, precision: str, most: float) -> None:
    assert 0 < apart(exported, precision) < most
    assert Engine(exported, precision=precision).record([[]]).shape == (1, 3)


def test_in_float32_openvino_is_exact(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_PRECISION", "fp32")
    assert apart(exported, "openvino") < 1e-4


def test_int8_has_fewer_bytes_and_leaves_the_head_and_what_is_inexact_in_float(exported: Path, tmp_path: Path) -> None:
    def quantized(folder: Path) -> str:
        return (folder / FILES["openvino-int8"][0]).read_text(encoding="utf-8")

    shutil.copytree(exported, tmp_path / "model")
    graph = quantized(exported)
    assert graph.count('type="FakeQuantize"') == 2 * 4 + 1, "of the top layer's query, the input is another"
    assert 'name="__module.model.classifier' in graph
    quantize(tmp_path / "model", TOKENS * 10, 1, 1.0, narrowing=False)
    assert quantized(tmp_path / "model").count('type="FakeQuantize"') == 2 * 3 + 1
    quantize(tmp_path / "model", TOKENS * 10, 1, 0.0)
    assert "FakeQuantize" not in quantized(tmp_path / "model")
    assert apart(tmp_path / "model", "openvino-int8") < apart(exported, "openvino-int8")


def test_threads_get_their_own_outputs(exported: Path) -> None:
    rows = [[101, 2000 + n, *range(2100, 2100 + n % 20), 102] for n in range(40)]
    engine = Engine(exported, threads=2, precision="openvino-int8")
    wanted = [engine.record([row]) for row in rows]

    def run(row: list[int]) -> np.ndarray:
        torch.set_num_threads(1)
        return engine.record([row])

    with ThreadPoolExecutor(4) as pool:
        for found, exact in zip(pool.map(run, rows * 5), wanted * 5, strict=True):
            np.testing.assert_allclose(found, exact, atol=1e-3)


def test_parallel_batches_have_the_same_bytes(exported: Path) -> None:
    rows = [[101, 2000 + n, *range(2100, 2100 + n % 20), 102] for n in range(100)]
    one, three = (Engine(exported, budget=100, precision="openvino-int8", parallel=n).record(rows) for n in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_the_top_layer_of_a_classifier_reads_one_token(folder: Path) -> None:
    engine = Engine(folder)  # restores the layers of its model when it ends
    bottom, top = engine.model.bert.encoder.layer
    assert "forward" in vars(top), "an instance with a forward of its own"
    assert "forward" not in vars(bottom)


def test_what_a_model_cannot_have_is_told(folder: Path) -> None:
    task = load_task(read_metadata(folder))
    assert unsupported_reason("openvino-int8", task, "bert") == "" == unsupported_reason("bf16", task, "llama")
    assert unsupported_reason("openvino-int8", task, "llama") == "not for models of type llama"
    with pytest.raises(ParamsError, match="for the CPU"):
        Engine(folder, device="cuda", precision="openvino-int8")


def test_a_missing_or_broken_file_is_told(exported: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"has no openvino\.xml"):
        Engine(folder, precision="openvino")
    (folder / "openvino.xml").write_text("no model")
    with pytest.raises(DataError, match="does not open"):
        Engine(folder, precision="openvino")


def test_a_model_that_openvino_does_not_convert_is_told(
    exported: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypath.components.inference.backends import openvino_export

    class Sorted(torch.nn.Module):
        """Reads NumPy, which torch cannot trace."""

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            length = int(np.sort(attention_mask.sum(dim=1).numpy())[-1])
            return input_ids[:, :3].float() * length

    monkeypatch.setattr(openvino_export, "_logits_of", lambda model: Sorted())
    with pytest.raises(ExportError, match="outputs differ"):
        export(folder, load_task(read_metadata(folder)), folder)
    assert not list(folder.glob("openvino*"))


def test_without_openvino_the_plain_model_answers(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    names = FILES["openvino-int8"]
    files = {name: file_digest(folder / name) for name in names}
    write_choice(folder, Choice(precision="openvino-int8", machine=machine("cpu", 1), files=files))
    assert Engine(folder).precision == "openvino-int8"
    monkeypatch.setitem(sys.modules, "openvino", None)
    plain = Engine(folder)
    assert plain.precision == resolve_precision(folder, "plain", "cpu")
    (line,) = caplog.messages
    assert line.endswith("openvino-int8: openvino is not installed (extra openvino)")
    with pytest.raises(ParamsError, match="openvino is not installed") as raised:
        Engine(folder, precision="openvino-int8")
    assert raised.value.fix == "pip install 'raypath[openvino]'"


@pytest.mark.parametrize("name", ["int8", "onnx", "onnx-int8"])
def test_a_precision_of_an_earlier_release_is_replaced(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [{"precision": "fp32", "rows_per_second": 50.0}, {"precision": name, "rows_per_second": 150.0}]
    written = Choice.model_validate({"precision": name, "machine": machine("cpu", 1), "table": lines})
    write_choice(folder, written)
    assert read_choice(folder) == written
    assert Engine(folder).precision == resolve_precision(folder, "plain", "cpu")
    (line,) = caplog.messages
    assert f"{name}: this release has no such backend; register it again" in line


def test_auto_follows_the_choice_on_a_machine_like_it(folder: Path) -> None:
    plain, here = resolve_precision(folder, "plain", "cpu"), machine("cpu", 1)
    chosen = "fp32" if plain == "bf16" else "bf16"
    measured = {"table": ({"precision": chosen},)}
    write_choice(folder, Choice.model_validate({"precision": chosen, "machine": here, **measured}))
    assert resolve_precision(folder, "plain", "cpu") == plain
    assert Engine(folder).precision == (chosen if chosen == "fp32" else usable_precision(folder, "cpu") or plain)
    other = here.model_copy(update={"flags": ("neon",)})
    write_choice(folder, Choice.model_validate({"precision": "fp32", "machine": other, **measured}))
    assert Engine(folder).precision == plain
    write_choice(folder, Choice(precision="fp32", machine=other))
    assert Engine(folder).precision == "fp32", "what was given, not measured, holds anywhere"
    write_choice(folder, Choice(precision="openvino-int8", machine=here))
    assert usable_precision(folder, "cuda") is None
    (folder / "precision.json").write_text("{")
    assert Engine(folder).precision == plain


def test_a_machine_is_told_by_features_that_torch_knows() -> None:
    capabilities = torch.cpu.get_capabilities()
    if capabilities["architecture"] != "x86_64":
        pytest.skip("the names of x86")
    assert {name for name in FLAGS if name.startswith(("avx", "amx"))} <= capabilities.keys()
    assert set(machine("cpu", 1).flags) == {name for name in FLAGS if capabilities.get(name)}


def test_auto_falls_back_without_the_file_that_was_registered(exported: Path, folder: Path) -> None:
    names = FILES["openvino"]
    for name in names:
        shutil.copyfile(exported / name, folder / name)
    files = {name: file_digest(folder / name) for name in names}
    choice = Choice(precision="openvino", machine=machine("cpu", 1), files=files)
    write_choice(folder, choice)
    assert read_choice(folder) == choice
    assert Engine(folder).precision == "openvino"
    with open(folder / names[1], "ab") as file:
        file.write(b"x")
    assert usable_precision(folder, "cpu") is None
    (folder / names[0]).unlink()
    assert Engine(folder).precision == resolve_precision(folder, "plain", "cpu")


def test_openvino_sends_no_telemetry(exported: Path) -> None:
    Engine(exported, precision="openvino")
    assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
