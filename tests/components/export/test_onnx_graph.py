"""ONNX graphs of encoders and classifiers have PyTorch's outputs, for any number of rows and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import raypath
from raypath.components import DataError
from raypath.components.core.errors import ParamsError
from raypath.components.export import onnx_graph
from raypath.components.models.metadata import read_metadata, write_metadata
from tests.components.export.decoders import decoder
from tests.tiny import tiny_bert
from tests.tiny_classifier import texts, tiny_classifier

pytest.importorskip("onnx", reason="extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="not a dependency")


def outputs(folder: Path, rows: list[Any]) -> Any:
    """The graph's output for texts, or pairs of texts, by the code of the model card."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    made = tokenizer(rows, return_tensors="np", padding=True, truncation=True, max_length=32)
    return session.run(None, {each.name: made[each.name] for each in session.get_inputs()})[0]


def reference(folder: Path, auto: str, rows: list[Any]) -> Any:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, auto).from_pretrained(folder).eval()
    with torch.inference_mode():
        found = model(**tokenizer(rows, return_tensors="pt", padding=True, truncation=True, max_length=32))
    return (found.logits if "logits" in found else found.last_hidden_state).numpy()


def test_a_classifier(tmp_path: Path) -> None:
    tiny_classifier(tmp_path / "model")
    raypath.export(tmp_path / "model", tmp_path / "out", to="onnx")
    for rows in (texts(7), ["one"]):
        wanted = reference(tmp_path / "model", "AutoModelForSequenceClassification", rows)
        np.testing.assert_allclose(outputs(tmp_path / "out", rows), wanted, rtol=1e-3, atol=1e-4)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"model.onnx", "tokenizer.json", "README.md"}
    assert 'session.run(["logits"], inputs)' in (tmp_path / "out" / "README.md").read_text()


def test_a_classifier_of_pairs_computes_its_segments(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_classifier(folder)
    write_metadata(folder, read_metadata(folder).model_copy(update={"form": "pair", "separator": 102}))
    raypath.export(folder, tmp_path / "out", to="onnx")
    pairs = [("a lovely cup", "of tea"), ("broken", "and it was late again")]
    wanted = reference(folder, "AutoModelForSequenceClassification", pairs)
    np.testing.assert_allclose(outputs(tmp_path / "out", pairs), wanted, rtol=1e-3, atol=1e-4)


def test_an_encoder(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "model")
    raypath.export(folder, tmp_path / "out", to="onnx")
    rows = ["a lovely cup of tea"] * 3
    np.testing.assert_allclose(
        outputs(tmp_path / "out", rows), reference(folder, "AutoModel", rows), rtol=1e-3, atol=1e-4
    )


def test_models_and_places_without_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = decoder(tmp_path / "chat")
    with pytest.raises(
        DataError, match="ONNX takes encoders and classifiers; this is a LlamaForCausalLM, which generates text"
    ):
        raypath.export(folder, tmp_path / "out", to="onnx")
    tiny_classifier(tmp_path / "model")
    monkeypatch.setattr(onnx_graph, "TOLERANCE", -1.0)
    with pytest.raises(DataError, match="the ONNX graph gives other outputs than PyTorch"):
        raypath.export(tmp_path / "model", tmp_path / "out", to="onnx")
    monkeypatch.setattr(onnx_graph.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ParamsError, match=r"ONNX needs the Python package onnx; pip install 'raypath\[onnx\]'"):
        raypath.export(tmp_path / "model", tmp_path / "out", to="onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chat", "model"]
