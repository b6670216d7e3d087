"""Exports as folders: complete files and a model card, or an error and nothing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import raypath
from raypath.components import DataError
from raypath.components.core.errors import ParamsError, StoreError
from raypath.deploy.cli.main import main
from tests.components.export.decoders import decoder, logits
from tests.tiny_classifier import texts, tiny_classifier

METRICS = {"macro_f1": 0.81234, "macro_f1_low": 0.7, "macro_f1_high": 0.9, "accuracy": 0.8, "f1/secret": 0.1}
DESCRIPTIONS = ("README.md", "bom.cdx.json", "raypath.json")


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A model folder as it is in the registry's cache, with files that are nobody else's business."""
    folder = tmp_path / "topics"
    tiny_classifier(folder, base="/home/somebody/bases/bert")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    for name in ("signature.json", "golden.json", "precision.json", "outputs.npy"):
        (folder / name).write_text("{}")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def front(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_a_classifier_as_a_transformers_folder(classifier: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    target = tmp_path / "out"
    target.mkdir()  # an empty folder is taken
    assert raypath.export(classifier, target, to="hf", progress=lambda *each: calls.append(each)) == target
    assert names(target) == [
        "README.md", "bom.cdx.json", "config.json", "model.safetensors", "raypath.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert target.stat().st_mode & 0o777 == 0o700
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (target / name).read_bytes() == (classifier / name).read_bytes()
    assert (
        calls[-1][0]
        == calls[-1][1]
        == sum(
            (target / name).stat().st_size
            for name in names(target)
            if name not in ("README.md", "bom.cdx.json", "raypath.json")
        )
    )
    lines = texts(12)
    one, other = (raypath.load(folder).predict(lines) for folder in (classifier, target))
    assert [each.score for each in one] == [each.score for each in other]
    card = (target / "README.md").read_text()
    assert front(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["raypath", "text_classification"],
    }
    assert "- Base: `bert`" in card
    assert "| macro_f1 | 0.8123 | 0.7 to 0.9 |\n| accuracy | 0.8 |  |" in card
    assert "transformers.BertForSequenceClassification.from_pretrained" in card
    for text in (card, (target / "config.json").read_text(), (target / "raypath.json").read_text()):
        assert "somebody" not in text
    assert "secret" not in card


def test_the_command_line(classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(classifier), "--to", "hf", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("7 files, ")
    assert f"in {tmp_path / 'out'}: README.md, bom.cdx.json, config.json, model.safetensors" in printed
    assert main(["export", str(classifier), "--to", "hf", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"raypath: {tmp_path / 'out'} is not empty; name a new folder\n"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("topics/config.json", "is a file; name a new folder"),
        ("topics", "is not empty; name a new folder"),
        ("none/out", "there is no folder .*none; create it first"),
        ("/proc/out", "cannot write /proc/out: .*; name another folder"),
        ("x" * 300, "cannot write .*File name too long; name another folder"),
    ],
)
def test_targets_that_are_no_new_folder(classifier: Path, tmp_path: Path, target: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        raypath.export(classifier, tmp_path / target, to="hf")
    assert names(tmp_path) == ["topics"]


def test_a_full_disk_leaves_nothing(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"no space left for .*out; free disk space, then run the same command again"):
        raypath.export(classifier, tmp_path / "out", to="hf")
    assert names(tmp_path) == ["topics"]


def test_a_file_that_appears_meanwhile_is_kept(classifier: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()

    def meanwhile(*_: int) -> None:
        (target / "mine.txt").write_text("mine")

    with pytest.raises(ParamsError, match=r"cannot write .*out: Directory not empty"):
        raypath.export(classifier, target, to="hf", progress=meanwhile)
    assert (names(tmp_path), names(target)) == (["out", "topics"], ["mine.txt"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"to": "pickle"}, "format 'pickle' is unknown; use one of hf, peft, gguf, onnx, encoder"),
        ({"to": "gguf", "type": "q4"}, "type 'q4' is unknown; use one of f16, bf16, q8_0"),
        ({"to": "peft"}, "topics has no LoRA adapter of its own; its weights are complete; use --to hf"),
        ({"to": "gguf"}, "GGUF takes causal language models; this is a BertForSequenceClassification; use --to hf"),
    ],
)
def test_formats_that_a_classifier_does_not_have(
    classifier: Path, tmp_path: Path, call: dict[str, Any], message: str
) -> None:
    pytest.importorskip("gguf", reason="extra chat")
    with pytest.raises((ParamsError, DataError), match=message):
        raypath.export(classifier, tmp_path / "out", **call)
    assert names(tmp_path) == ["topics"]


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty is not a model; wanted a transformers folder with config.json"):
        raypath.export(tmp_path / "empty", tmp_path / "out", to="hf")
    with pytest.raises(ParamsError, match="no model folder nothing; a registered one is models:/nothing@champion"):
        raypath.export("nothing", tmp_path / "out", to="hf")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "llama", "architectures": ["pipeline"]}')
    pytest.importorskip("onnx", reason="extra onnx")
    with pytest.raises(DataError, match=r"names no model of transformers in its config.json"):
        raypath.export(tmp_path / "empty", tmp_path / "out", to="onnx")


def test_weights_that_are_not_there(classifier: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    pytest.importorskip("onnx", reason="extra onnx")
    file = classifier / "model.safetensors"
    weights = load_file(file)
    del weights["classifier.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(DataError, match=r"lacks 1 weights of a BertForSequenceClassification, such as classifier.wei"):
        raypath.export(classifier, tmp_path / "out", to="onnx")
    file.write_bytes(b"short")
    with pytest.raises(DataError, match=r"topics: it does not open \(.*\); give a folder that transformers opens"):
        raypath.export(classifier, tmp_path / "out", to="onnx")
    assert names(tmp_path) == ["topics"]


def test_a_decoder_for_ollama(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gguf", reason="extra chat")
    folder = decoder(tmp_path / "My chat!")
    assert main(["export", str(folder), "--to", "gguf", "--type", "Q8_0", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["Modelfile", "My-chat-q8_0.gguf", "README.md", "bom.cdx.json"]
    lines = (tmp_path / "out" / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./My-chat-q8_0.gguf"
    assert lines[1].startswith('TEMPLATE """{{ range $i, $message := .Messages }}')
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert "ollama create My-chat -f Modelfile" in (tmp_path / "out" / "README.md").read_text()
    assert capsys.readouterr().out.startswith("4 files, 0.")


def test_a_decoder_as_a_transformers_folder(tmp_path: Path) -> None:
    import torch
    import transformers

    folder = decoder(tmp_path / "chat")
    raypath.export(folder, tmp_path / "out", to="hf")
    found = [logits(transformers.AutoModelForCausalLM.from_pretrained(each)) for each in (folder, tmp_path / "out")]
    assert torch.equal(*found)
    templates = [transformers.AutoTokenizer.from_pretrained(each).chat_template for each in (folder, tmp_path / "out")]
    assert templates[0] == templates[1] is not None
