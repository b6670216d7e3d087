"""Base models and rows of the decoder benchmark: Llamas with random weights, rows of random tokens.

`python -m tests.bench.gpu.decoders.base SHAPE DEVICE FOLDER` writes a base.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.token_dataset import TokenDataset
from raypath.components.training.job import TrainingJob
from raypath.components.training.params import ResolvedParams
from tests.tiny import save_tokenizer

LEARNED = 0.5
"""Share of a row's tokens that are in the loss, at its end."""


@dataclass(frozen=True)
class Shape:
    """Size of a Llama with tied embeddings; tokens of a step, of a mean row and of the longest."""

    layers: int
    width: int
    heads: int
    keys: int
    inner: int
    words: int
    tokens: int
    mean: int
    longest: int


SHAPES = {
    "1b": Shape(16, 2_048, 32, 8, 8_192, 128_256, tokens=16_384, mean=500, longest=2_048),  # Llama-3.2-1B
    "small": Shape(4, 512, 8, 2, 1_536, 8_192, tokens=4_096, mean=200, longest=600),
    "tiny": Shape(2, 64, 4, 2, 128, 600, tokens=512, mean=40, longest=100),
}
"""1b is measured, small is checked on a GPU, tiny shows on a CPU that all of it works."""


def write_base(shape: Shape, device: str, folder: Path) -> None:
    """Write a base in bfloat16, its weights drawn on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.words,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.keys,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.longest,
        tie_word_embeddings=True,
        **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    model.to("cpu", torch.bfloat16).save_pretrained(folder)
    save_tokenizer(folder)


def make_rows(shape: Shape, tokens: int, seed: int = 0) -> TokenDataset:
    """Draw rows of at least `tokens` tokens together, with log-normal lengths; a row repeats words, to be learned."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        lengths.append(int(np.clip(rng.lognormal(np.log(shape.mean), 0.6), 8, shape.longest)))
    ids = [np.resize(rng.integers(10, shape.words, 4), length) for length in lengths]
    masks = [np.arange(length) >= length * (1 - LEARNED) for length in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = np.concatenate(ids).astype(np.int32)
    return TokenDataset(flat, offsets, np.zeros(len(lengths), np.int64), loss_mask=np.concatenate(masks))


def job_of(shape: Shape, folder: Path, steps: int, scratch: Path | None = None, **changes: Any) -> TrainingJob:
    """Build a training of about `steps` steps, as `finetune` runs it. changes: of its settings."""
    plain = {"task": "text_generation", "epochs": 1, "lr": 1e-3, "warmup": 0.1, "batch_tokens": shape.tokens}
    plain |= {"frozen_layers": -1, "memory": "full", "patience": 0}
    params = ResolvedParams().override(plain | changes)
    named = {"base": str(folder), "label_kind": LabelKind.NONE, "max_length": shape.longest}
    task = load_task(ModelMetadata(task="text_generation", labels=(), **named))
    rows, few = make_rows(shape, steps * shape.tokens), make_rows(shape, shape.tokens // 4, seed=1)
    return TrainingJob(task, folder, rows, few, params, 0, 1, scratch=scratch)


def operations(shape: Shape, lengths: Any) -> float:
    """Floating-point operations of steps in full over rows with these many tokens, int [N].

    6 a weight and token (Kaplan et al., 2020), the head for tokens in the loss alone; attention over the tokens before
    each, 6 L^2 d a layer (half of that in PaLM, appendix B, which counts those after it too).
    """
    head = shape.width // shape.heads
    layer = shape.width * head * (2 * shape.heads + 2 * shape.keys) + 3 * shape.width * shape.inner
    tokens, pairs = float(np.sum(lengths)), float(np.sum(np.square(np.asarray(lengths, np.float64))))
    matrices = 6 * (shape.layers * layer * tokens + shape.words * shape.width * tokens * LEARNED)
    return matrices + 6 * shape.layers * shape.width * pairs


if __name__ == "__main__":
    name, place, out = sys.argv[1:]
    write_base(SHAPES[name], place, Path(out))
