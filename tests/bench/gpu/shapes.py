"""Models and rows of the GPU benchmark: shapes of known models with random weights, rows of random tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raypath.components.core.arrays import Array
from raypath.components.training.batches.sampler import plan_epoch

CLASSES = 5
LONGEST, MEAN = 128, 75
"""Tokens of the longest row and of a mean one, as of the sample reviews."""
FIRST_WORD = 1_000


@dataclass(frozen=True)
class Shape:
    """Size of a BERT encoder, and the tokens of a step."""

    layers: int
    width: int
    heads: int
    inner: int
    words: int
    tokens: int


SHAPES = {
    "minilm": Shape(layers=6, width=384, heads=12, inner=1_536, words=30_522, tokens=16_384),
    "bert-large": Shape(layers=24, width=1_024, heads=16, inner=4_096, words=30_522, tokens=16_384),
}
CPU_SHAPES = {"tiny": Shape(layers=2, width=64, heads=2, inner=256, words=2_000, tokens=512)}
"""Shows that every variant runs; its times say nothing about a GPU."""


def shapes_of(device: str) -> dict[str, Shape]:
    """Return the shapes that are measured on a device, by name."""
    return SHAPES if device == "cuda" else CPU_SHAPES


def build(shape: Shape, seed: int = 0) -> Any:
    """Build the classifier on the CPU, without dropout, the same for the same seed."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=shape.words,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=512,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    return BertForSequenceClassification(config)


@dataclass(frozen=True)
class Rows:
    """Token ids, int64 [sum of lengths], offsets int64 [N + 1] and classes int64 [N]."""

    ids: Array
    offsets: Array
    targets: Array

    @property
    def lengths(self) -> Array:
        """Tokens of each row, int64 [N]."""
        return np.diff(self.offsets)

    def __getitem__(self, row: int) -> Array:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]


def make_rows(shape: Shape, count: int, seed: int = 0) -> Rows:
    """Draw rows: lengths from a log-normal distribution that is cut at LONGEST, as those of reviews are."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(MEAN), 0.6, count).astype(np.int64), 8, LONGEST)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(FIRST_WORD, shape.words, offsets[-1])
    return Rows(ids, offsets, rng.integers(0, CLASSES, count))


def padded_steps(rows: Rows, tokens: int, seed: int = 0) -> Iterator[Array]:
    """Yield the row numbers of each step without end, as training takes them: rows of similar length together."""
    epoch = 0
    while True:
        yield from plan_epoch(rows.lengths, tokens, seed, epoch)
        epoch += 1


def packed_steps(rows: Rows, tokens: int, most: int, seed: int = 0) -> Iterator[Array]:
    """Yield steps without padding: rows in random order, at most `tokens` tokens and `most` rows in each."""
    epoch, lengths = 0, rows.lengths
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
        begin = used = 0
        for end, row in enumerate(order):
            if used + lengths[row] > tokens or end - begin == most:
                yield order[begin:end]
                begin, used = end, 0
            used += int(lengths[row])
        yield order[begin:]
        epoch += 1
