"""Conversion of a GGUF file of the Llama family to a folder of transformers: weights, configuration, tokenizer.

transformers reads such a file itself with `gguf_file=`, through accelerate and a quantizer that has to be taken off
before training; this one writes plain weights, and needs the package gguf alone. The format is that of
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.models.conversion.byte_level import build_tokenizer, tokenizer_settings

_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)")
_FAMILY = "llama"


class GgufFile:
    """An open file. Raises DataError without the package gguf, or for a model of another family."""

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader
        except ImportError:
            what = f"{path.name} needs the Python package gguf"
            raise DataError(what, fix="pip install 'raypath[chat]'") from None
        self._reader = GGUFReader(str(path))
        if (family := self.value("general.architecture")) != _FAMILY:
            raise DataError(f"{path} is a model of the family {family}; wanted {_FAMILY}", fix="give another base")

    def value(self, key: str, default: Any = None) -> Any:
        """Value of a key: a number, a text or a list; `default` if the file lacks it."""
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def shape(self, key: str, default: Any = None) -> Any:
        """Value of a key of the model's family."""
        return self.value(f"{_FAMILY}.{key}", default)

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Yield each tensor as transformers names and stores it, float32."""
        from gguf import dequantize

        heads, groups = self.shape("attention.head_count"), self.shape("attention.head_count_kv")
        for tensor in self._reader.tensors:
            name, part = tensor.name.rsplit(".", 1)
            values = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
            if name.endswith((".attn_q", ".attn_k")):
                values = _halves(values, heads if name.endswith("q") else groups or heads)
            yield f"{_renamed(name)}.{part}", values


def write_folder(source: Path, folder: Path) -> None:
    """Convert a file. The weights become bfloat16, 2 bytes each: the precision in which such models are published.

    Raises DataError for a model or a tokenizer of another family.
    """
    import torch
    from safetensors.torch import save_file

    file = GgufFile(source)
    # Contiguous copies: safetensors stores no views.
    weights = {name: torch.from_numpy(values.copy()).to(torch.bfloat16) for name, values in file.tensors()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _write_json(folder / "config.json", _config(file, tied="lm_head.weight" not in weights))
    _write_json(folder / "generation_config.json", _tokens(file) | {"do_sample": False})
    build_tokenizer(file.value).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", tokenizer_settings(file.value, file.shape("context_length")))
    if template := file.value("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _renamed(name: str) -> str:
    block = _BLOCK.fullmatch(name)
    found = _LAYER.get(block[2]) if block else _NAMES.get(name)
    if found is None:
        raise DataError(f"the tensor {name} is not one of a plain {_FAMILY} model", fix="give another base")
    return f"model.layers.{block[1]}.{found}" if block else found


def _halves(values: Array, heads: int) -> Array:
    """Reorder the rows of queries or keys, [heads * size, width]: rotary pairs are neighbours in GGUF (2i, 2i + 1), and
    half a head apart in transformers (i, i + size / 2)."""
    pairs = values.reshape(heads, len(values) // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _config(file: GgufFile, tied: bool) -> dict[str, Any]:
    width, heads = file.shape("embedding_length"), file.shape("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": file.shape("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.shape("attention.head_count_kv", heads),
        "head_dim": file.shape("attention.key_length", width // heads),
        "intermediate_size": file.shape("feed_forward_length"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "vocab_size": len(file.value("tokenizer.ggml.tokens")),
        "max_position_embeddings": file.shape("context_length"),
        # Stored as float32, which 1e-05 is not.
        "rms_norm_eps": float(f"{file.shape('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(file.shape("rope.freq_base", 10_000.0)),
        "tie_word_embeddings": tied,
        "dtype": "bfloat16",
        **_tokens(file),
    }


def _tokens(file: GgufFile) -> dict[str, int]:
    """Ids of the tokens that begin a text, end an answer and pad."""
    end = file.value("tokenizer.ggml.eos_token_id")
    return {
        "bos_token_id": file.value("tokenizer.ggml.bos_token_id", end),
        "eos_token_id": end,
        "pad_token_id": file.value("tokenizer.ggml.padding_token_id", end),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
