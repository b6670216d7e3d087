"""MinHash signatures and their bands: near duplicates without a comparison of all pairs.

A. Broder, "On the resemblance and containment of documents", 1997. A signature has 64 minima of hashed words and pairs
of words, in 16 bands of four: texts of Jaccard similarity 0.8 share a band with probability 0.9998, of 0.3 with 0.12.
Memory holds one band of 8 bytes a row at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.inspection.texts.words import Words

BANDS, BAND_ROWS = 16, 4
MIN_WORDS = 5
"""Words of a text below which similarity says little."""
_CHUNK = 1 << 18
"""Pairs that are compared at a time."""
_rng = np.random.default_rng(20_111_997)
_FACTORS = _rng.integers(1, 2**63, BANDS * BAND_ROWS, np.uint64) * 2 + 1
_OFFSETS = _rng.integers(0, 2**63, BANDS * BAND_ROWS, np.uint64)


def signatures(words: Words) -> Array:
    """Return signatures, uint16 [N, 64]; zeros for a text without words."""
    size = len(words.starts) - 1
    found = np.zeros((size, BANDS * BAND_ROWS), np.uint16)
    hashes = words.hashes[words.codes]
    if not len(hashes):
        return found
    rows = words.rows
    pairs = (hashes[:-1] * np.uint64(0x9E3779B97F4A7C15) + hashes[1:])[rows[:-1] == rows[1:]]
    pair_rows = rows[:-1][rows[:-1] == rows[1:]]
    order = np.argsort(np.concatenate([rows, pair_rows]), kind="stable")
    shingles = np.concatenate([hashes, pairs])[order]
    present = np.flatnonzero(words.counts)
    counts = words.counts[present] * 2 - 1
    starts = np.cumsum(counts) - counts
    shingles ^= shingles >> np.uint64(31)
    for n, (factor, offset) in enumerate(zip(_FACTORS, _OFFSETS, strict=True)):
        # The high bits of a product depend on all bits of the hash (multiply-shift).
        mixed = ((shingles * factor + offset) >> np.uint64(32)).astype(np.uint32)
        found[present, n] = np.minimum.reduceat(mixed, starts).astype(np.uint16)
    return found


def similar_groups(band: Callable[[int], Array], rows: Array, similarity: float) -> Array:
    """Return the group of similar rows of each row, int32 [N]: the least index in `rows` of its members.

    band: returns a band of all rows, uint64. rows: the rows to compare, sorted. A row is compared with the first row of
    its bucket and the one before it there, so that a large bucket does not become many pairs.
    """
    group = np.arange(len(rows), dtype=np.int32)
    for n in range(BANDS):
        pairs = _candidates(band(n)[rows], group)
        differences = np.zeros(len(pairs), np.uint8)
        # Most pairs that are not similar are left out after a few bands.
        for m in range(BANDS if len(pairs) else 0):
            differences += _differences(band(m)[rows], pairs)
            close = BANDS * BAND_ROWS - differences >= similarity * BANDS * BAND_ROWS
            pairs, differences = pairs[close], differences[close]
        if len(pairs):
            group = _joined(group, pairs)
    return group


def _candidates(keys: Array, group: Array) -> Array:
    """Return pairs of indices with the same key that are not in one group yet, int32 [P, 2]."""
    order = np.argsort(keys, kind="stable").astype(np.int32)
    first = run_starts(keys[order])
    later = np.flatnonzero(first != np.arange(len(order)))
    pairs = np.concatenate([np.stack([order[n], order[later]], axis=1) for n in (first[later], later - 1)])
    new: Array = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
    return new


def run_starts(values: Array) -> Array:
    """Return the index where the run of equal values that an element belongs to begins, int64 [N]."""
    begins = np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    starts: Array = np.maximum.accumulate(np.where(begins, np.arange(len(values)), 0))
    return starts


def _differences(keys: Array, pairs: Array) -> Array:
    """Values of a band that differ, 0 to 4, uint8 [P]."""
    found = np.zeros(len(pairs), np.uint8)
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        other = (keys[chunk[:, 0]] ^ keys[chunk[:, 1]]).view(np.uint16).reshape(-1, BAND_ROWS)
        found[start : start + _CHUNK] = (other != 0).sum(axis=1)
    return found


def _joined(group: Array, pairs: Array) -> Array:
    """Join the groups of pairs."""
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    size, ends = len(group), group[pairs]
    graph = coo_array((np.ones(len(pairs), np.int8), (ends[:, 0], ends[:, 1])), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    least = np.full(size, size, np.int32)
    np.minimum.at(least, components, np.arange(size, dtype=np.int32))
    joined: Array = least[components[group]]
    return joined
