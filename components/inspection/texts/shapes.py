"""Shape of texts: a few numbers a text by its bytes, and texts far from the others by them."""

from __future__ import annotations

from collections.abc import Iterable

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
_MIN_ROWS = 30
_LEAST = (0.35, 0.06, 0.04, 0.15, 0.15, 0.08)
"""Least standard deviation by column: where nearly all texts are alike, a small difference is no outlier."""


def shapes(texts: pa.Array, words: Array, distinct: Array) -> list[Array]:
    """Return a column for each of NAMES, float [N]; lengths are logarithms.

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
    return [
        np.log1p(lengths),
        counts[0] / solid,
        counts[1] / solid,
        counts[2] / letters,
        np.log1p(solid / (counts[3] + 1)),
        repetition,
    ]


def outliers(columns: Iterable[Array]) -> tuple[Array, Array]:
    """Return the rows that are far from the others, int64 [O], the farthest first, and the column that says so.

    columns: float32 [N] in the order of NAMES.
    """
    farthest = column = np.zeros(0)
    for n, values in enumerate(columns):
        if len(values) < _MIN_ROWS:
            break
        middle = np.median(values)
        distance = np.abs(values - middle)
        distance /= max(1.4826 * float(np.median(distance)), _LEAST[n])
        if n == 0:
            farthest, column = np.zeros_like(values), np.zeros(len(values), np.int8)
        column[distance > farthest] = n
        np.maximum(farthest, distance, out=farthest)
    rows = np.flatnonzero(farthest > _SPREADS)
    rows = rows[np.argsort(-farthest[rows], kind="stable")]
    return rows, column[rows]
