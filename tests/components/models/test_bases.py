"""Bases of many kinds: without fused attention, with a head of their own, with old weights or another tokenizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError
from raypath.components.data.tokenization.tokenizer import TextTokenizer, tokenizer_folder
from raypath.components.models.base_models import base_folder, build_model, tokenizer_digest
from raypath.components.models.heads.stored_head import head_warning
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from tests.tiny import save_tokenizer, tiny_bert, tiny_config

SEQUENCE = "AutoModelForSequenceClassification"
SHAPE = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BASES = {"deberta-v2": "DebertaV2Model", "mpnet": "MPNetModel", "bert": "BertModel"}


@pytest.mark.parametrize("kind", BASES)
def test_a_base_without_fused_attention_is_trained_and_opened(kind: str, tmp_path: Path) -> None:
    import torch
    import transformers

    from raypath.components.inference.backends.loader import _open

    config = transformers.AutoConfig.for_model(kind, **SHAPE, intermediate_size=64, position_buckets=8)
    getattr(transformers, BASES[kind])(config).save_pretrained(tmp_path / "base")
    model = build_model(SEQUENCE, str(tmp_path / "base"), ("a", "b", "c"), 0.0)
    ids = torch.tensor([[1, 2, 3, 4]])
    loss = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.logsumexp(1).sum()
    loss.backward()
    model.save_pretrained(tmp_path / "model")
    task = load_task(ModelMetadata(task="text_classification", labels=("a", "b", "c"), max_length=32))
    opened = _open(tmp_path / "model", task, torch.float32)
    wanted = "sdpa" if kind == "bert" else "eager"
    assert (model.config._attn_implementation, opened.config._attn_implementation) == (wanted, wanted)
    with torch.no_grad():
        torch.testing.assert_close(opened.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def classifier(folder: Path, *labels: str, kind: str = "BertForSequenceClassification") -> Any:
    """A base with a head whose weights are all 7."""
    import torch
    import transformers

    names = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    model = getattr(transformers, kind)(tiny_config(**names))
    with torch.no_grad():
        model.classifier.weight.fill_(7.0)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("labels", [("y", "x"), ("a", "b"), ("x", "y", "z"), ("x",)])
def test_a_head_of_other_labels_is_replaced(labels: tuple[str, ...], tmp_path: Path) -> None:
    import torch

    stored = classifier(tmp_path, "x", "y")
    model = build_model(SEQUENCE, str(tmp_path), labels, None)
    assert model.classifier.weight.shape == (len(labels), 32)
    assert model.classifier.weight.abs().max() < 1.0
    assert torch.equal(model.bert.pooler.dense.weight, stored.bert.pooler.dense.weight)
    assert model.config.id2label == dict(enumerate(labels))
    assert "with the labels x, y; it is replaced" in head_warning(SEQUENCE, tmp_path, labels)


def test_a_head_of_the_same_labels_is_kept(tmp_path: Path) -> None:
    classifier(tmp_path / "same", "x", "y")
    assert build_model(SEQUENCE, str(tmp_path / "same"), ("x", "y"), None).classifier.weight.min() == 7.0
    assert head_warning(SEQUENCE, tmp_path / "same", ("x", "y")) == ""
    classifier(tmp_path / "tokens", "x", "y", kind="BertForTokenClassification")
    assert build_model(SEQUENCE, str(tmp_path / "tokens"), ("x", "y"), None).classifier.weight.max() < 1.0
    tiny_bert(tmp_path / "none")
    assert head_warning(SEQUENCE, tmp_path / "none", ("x", "y")) == ""


def test_old_weights_are_refused_with_the_command_that_converts_them(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tiny_bert(tmp_path / "my base")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**weights, "tied": weights["embeddings.word_embeddings.weight"]}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="weights in pytorch_model") as caught:
        base_folder(str(folder))
    command = caught.value.fix.removeprefix("convert them: python ")
    done = subprocess.run(f"{sys.executable} {command}", shell=True, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert base_folder(str(folder)) == folder
    found = load_file(folder / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


class Trap:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('executed')",)


def test_old_weights_with_code_are_not_executed(tmp_path: Path) -> None:
    import torch

    from raypath.components.models.conversion.to_safetensors import convert

    torch.save({"weight": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="has more than weights"):
        convert(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_tokenizer_of_vocabulary_and_merges_opens(tmp_path: Path) -> None:
    """The files of GPT-2 and RoBERTa without tokenizer.json."""
    import json

    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, "te", "tea"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt e\nte a\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "max_position_embeddings": 66}))
    assert tokenizer_folder(str(tmp_path)) == tmp_path
    [ids] = TextTokenizer(tmp_path, 32).encode(["tea"])
    assert ids == [0, words.index("tea"), 2]
    before = tokenizer_digest(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt e\n")
    assert tokenizer_digest(tmp_path) != before


@pytest.mark.parametrize("name", ["a/b/c", "a//b", "-a/b", "a/b--c", "", "a b"])
def test_a_name_that_the_hub_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="is no name of a repository"):
        base_folder(f"hf://{name}")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    with pytest.raises(DataError, match=r"lacks a config\.json with a model_type, \*\.safetensors"):
        base_folder(str(tmp_path))


def test_adapters_alone_are_no_base_model(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="has adapters alone, not the model that they belong to") as caught:
        base_folder(str(tmp_path))
    assert "merge_and_unload" in caught.value.fix
