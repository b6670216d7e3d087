"""Tiny decoders of several architectures, with random weights, and rows whose answers can be learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.artifacts import Dataset
from raypath.components.core.labels import LabelKind
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.models.base_models import tokenizer_digest
from raypath.components.training.batches.token_dataset import TokenDataset
from tests.tiny import save_tokenizer

WORDS = 96
_SHAPE: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GPT2: dict[str, Any] = {
    **{"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    **{"bos_token_id": 1, "eos_token_id": 2, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
}
_MAMBA: dict[str, Any] = {
    **{"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": True}),
    "mistral with a window": ("Mistral", {"sliding_window": 4}),
    "gemma2 with a cap": (
        "Gemma2",
        {
            "sliding_window": 4,
            "query_pre_attn_scalar": 8,
            "final_logit_softcapping": 5.0,
            "attn_logit_softcapping": 3.0,
        },
    ),
    "gemma3": ("Gemma3Text", {"sliding_window": 4, "query_pre_attn_scalar": 8}),
    "granite with a scale": ("Granite", {"logits_scaling": 4.0}),
    "phi with a bias": ("Phi", {"head_dim": None}),
    "phi3 with joined matrices": ("Phi3", {"sliding_window": 4, "partial_rotary_factor": 0.5, "head_dim": None}),
    "mixtral with experts": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "gpt-oss with sinks": (
        "GptOss",
        {
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "sliding_window": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "gpt2": ("GPT2", {}),
    "mamba": ("Mamba", {}),
}
PADDED = frozenset({"mamba"})
"""Kinds whose rows are padded: no attention of theirs can be kept inside rows."""


def tiny_decoder(kind: str, **changes: Any) -> Any:
    """A decoder of this kind with random weights, in training mode and float32. changes: of its configuration."""
    import torch
    import transformers

    name, more = KINDS[kind]
    shape = {"GPT2": _GPT2, "Mamba": _MAMBA}.get(name, _SHAPE)
    shape = {key: value for key, value in (shape | more | changes).items() if value is not None}
    config = getattr(transformers, f"{name}Config")(**shape)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().train()


def decoder_folder(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """A base model: a decoder and a tokenizer of more words than it has. changes: of its configuration."""
    tiny_decoder(kind, **changes).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def answers(count: int, seed: int = 0, longest: int = 24) -> TokenDataset:
    """Rows of a question and its answer: the same words plus one. The answers alone are learned."""
    rng = np.random.default_rng(seed)
    ids, masks = [], []
    for length in rng.integers(3, longest // 2, count):
        words = rng.integers(10, 14, length)
        ids.append(np.concatenate([[3], words, [4], words + 10, [2]]))
        masks.append(np.arange(2 * length + 3) > length + 1)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    return TokenDataset(
        np.concatenate(ids).astype(np.int32), offsets, np.zeros(count, np.int64), loss_mask=np.concatenate(masks)
    )


def write_answers(folder: Path, base: Path, count: int, seed: int) -> Dataset:
    """A preprocessed Dataset of `answers`, for a base model."""
    import pyarrow as pa

    made = answers(count, seed)
    lists = [pa.array(made.offsets, pa.int32()), pa.array(made.ids), pa.array(made.loss_mask)]
    table = pa.table(
        {
            "input_ids": pa.ListArray.from_arrays(lists[0], lists[1]),
            "loss_mask": pa.ListArray.from_arrays(lists[0], lists[2]),
        }
    )
    with TableWriter(folder, table.schema) as writer:
        writer.write(table)
    return Dataset(
        uri=str(folder), digest=f"{seed}" * 64, rows=count, label_kind=LabelKind.NONE,
        tokenizer=tokenizer_digest(base), max_length=64, source="made up",
    )  # fmt: skip
