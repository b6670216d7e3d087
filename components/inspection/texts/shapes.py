"""Shape of texts: a few numbers a text by its bytes, and texts far from the others by them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array

NAMES = ("length", "share of letters", "share of digits", "share of capitals", "length of words", "repetition")
_LETTER, _DIGIT, _CAPITAL, _SPACE, _OTHER = range(5)
_CLASS = np.full(256, _OTHER, np.uint8)
_CLASS[128:] = _LETTER  # a byte of a character beyond ASCII
_CLASS[[*range(97, 123), *range(65, 91)]] = _LETTER
_CLASS[48:58] = _DIGIT
_CLASS[[9, 10, 11, 12, 13, 32]] = _SPACE
_SPREADS = 7.0
"""Distance from the median, in robust standard deviations (1.4826 MAD), beyond which a text is an outlier."""
_LEAST = np.array([0.35, 0.06, 0.04, 0.15, 0.15, 0.08])
"""Least standard deviation by column: where nearly all texts are alike, a small difference is no outlier."""


def shapes(texts: pa.Array, words: Array, distinct: Array) -> Array:
    """Return float32 [N, 6] in the order of NAMES; lengths are logarithms.

    words: words of each text; distinct: distinct ones, int [N].
    """
    size = len(texts)
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + size + 1].astype(np.int64)
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    counts = np.zeros((4, size))
    filled = np.flatnonzero(lengths)
    if len(filled):
        kinds = _CLASS[data]
        members = [kinds == _LETTER, kinds == _DIGIT, (data >= 65) & (data <= 90), kinds == _SPACE]
        for n, member in enumerate(members):
            counts[n, filled] = np.add.reduceat(member, starts[filled], dtype=np.int64)
    solid = np.maximum(lengths - counts[3], 1)
    letters = np.maximum(counts[0], 1)
    repetition = 1 - np.where(words > 0, distinct / np.maximum(words, 1), 1)
    columns = [
        np.log1p(lengths),
        counts[0] / solid,
        counts[1] / solid,
        counts[2] / letters,
        np.log1p(solid / (counts[3] + 1)),
        repetition,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def outliers(found: Array) -> tuple[Array, Array]:
    """Return the rows that are far from the others, int64 [O], the farthest first, and the column that says so."""
    if len(found) < 30:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    middle = np.median(found, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(found - middle), axis=0), _LEAST)
    distance = np.abs(found - middle) / spread
    column = distance.argmax(axis=1)
    farthest = distance.max(axis=1)
    rows = np.flatnonzero(farthest > _SPREADS)
    rows = rows[np.argsort(-farthest[rows], kind="stable")]
    return rows, column[rows]
