"""Places of features, weights and scores in the slots of ciphertexts.

A slot is numbered by (block, text, class): `block * texts * stride + text * stride + class`, where `stride` is the
number of classes of one result, a power of two, and there are 4,096 / (texts * stride) blocks, a feature each. A
ciphertext therefore has the features of one block number after another, each of them once for every class; a product
with the weights in the same places, added up over all blocks by rotations, has the scores. Since rotations go round all
slots, each block of the result has the same scores and nothing else: no sums of some features, which would tell more
about the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.homomorphic.parameters import SLOTS

MAX_CIPHERTEXTS = 32
"""Ciphertexts of a request, and of a response."""
MAX_PRODUCTS = 256
"""Products of ciphertexts with weights for one request."""
_UPLOAD, _DOWNLOAD = 115, 131
"""KiB of a ciphertext in a request and in a response, by which a stride is chosen."""


@dataclass(frozen=True)
class Packing:
    """Packing of `texts` rows, a power of two, of `width` features for `classes` scores each."""

    width: int
    classes: int
    texts: int
    stride: int
    """Classes of one result."""

    @property
    def period(self) -> int:
        """Slots of one block."""
        return self.texts * self.stride

    @property
    def blocks(self) -> int:
        """Features of a row in one ciphertext."""
        return SLOTS // self.period

    @property
    def inputs(self) -> int:
        """Ciphertexts of a request."""
        return -(-self.width // self.blocks)

    @property
    def results(self) -> int:
        """Ciphertexts of a response."""
        return -(-self.classes // self.stride)

    @property
    def rotations(self) -> tuple[int, ...]:
        """Steps of the rotations that add up all blocks."""
        return tuple(self.period << n for n in range(self.blocks.bit_length() - 1))

    def pack_features(self, features: Array) -> Array:
        """Place features, float [N, width] with N at most `texts`, in slots: float64 [inputs, SLOTS]."""
        rows = np.zeros((self.texts, self.inputs * self.blocks))
        rows[: len(features), : self.width] = features
        blocks = rows.reshape(self.texts, self.inputs, self.blocks).transpose(1, 2, 0)  # [inputs, blocks, texts]
        return np.repeat(blocks[..., None], self.stride, axis=3).reshape(self.inputs, SLOTS)

    def pack_weights(self, weight: Array) -> Array:
        """Place weights, float [classes, width], in slots: float64 [results, inputs, SLOTS]."""
        table = np.zeros((self.results * self.stride, self.inputs * self.blocks))
        table[: self.classes, : self.width] = weight
        blocks = table.reshape(self.results, self.stride, self.inputs, self.blocks).transpose(0, 2, 3, 1)
        return np.repeat(blocks[..., None, :], self.texts, axis=3).reshape(self.results, self.inputs, SLOTS)

    def pack_bias(self, bias: Array) -> Array:
        """Place biases, float [classes], in slots: float64 [results, SLOTS]."""
        padded = np.zeros(self.results * self.stride)
        padded[: self.classes] = bias
        return np.tile(padded.reshape(self.results, self.stride), (1, SLOTS // self.stride))

    def unpack_scores(self, slots: Array, rows: int) -> Array:
        """Return the scores of the first `rows` texts, float64 [rows, classes], from slots, float [results, SLOTS].

        All blocks have the same scores; their mean has less noise.
        """
        found = slots.reshape(self.results, self.blocks, self.texts, self.stride).mean(axis=1)
        return np.asarray(found.transpose(1, 0, 2).reshape(self.texts, -1)[:rows, : self.classes])


def choose_packing(width: int, classes: int, texts: int) -> Packing | None:
    """Return the packing with the fewest bytes for a number of texts; None if they do not fit one request."""
    if texts < 1 or texts & (texts - 1):
        return None
    strides = [1 << n for n in range(SLOTS.bit_length()) if texts << n <= SLOTS and 1 << n < 2 * classes]
    made = [Packing(width, classes, texts, stride) for stride in strides]
    fit = [each for each in made if max(each.inputs, each.results) <= MAX_CIPHERTEXTS]
    fit = [each for each in fit if each.inputs * each.results <= MAX_PRODUCTS]
    return min(fit, key=lambda each: each.inputs * _UPLOAD + each.results * _DOWNLOAD, default=None)
