"""MinHash signatures and their bands: near duplicates without a comparison of all pairs.

A. Broder, "On the resemblance and containment of documents", 1997. A signature has 64 minima of hashed words and pairs
of words, in 16 bands of four: texts of Jaccard similarity 0.8 share a band with probability 0.9998, of 0.3 with 0.12.
The bands are in files, so that memory holds one band of 8 bytes a row at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.inspection.texts.words import Words

BANDS, BAND_ROWS = 16, 4
MIN_WORDS = 5
"""Words of a text below which similarity says little."""
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


class BandFiles:
    """Bands of all rows, one file each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = [folder / f"band-{n:02d}" for n in range(BANDS)]
        self._files = [path.open("wb") for path in self.paths]

    def add(self, signatures: Array) -> None:
        """Append signatures, uint16 [N, 64]."""
        for n, file in enumerate(self._files):
            file.write(np.ascontiguousarray(signatures[:, n * BAND_ROWS : (n + 1) * BAND_ROWS]).tobytes())

    def close(self) -> None:
        """Finish writing."""
        for file in self._files:
            file.close()

    def band(self, n: int) -> Array:
        """Read a band, uint64 [N]."""
        return np.fromfile(self.paths[n], np.uint64)


def similar_pairs(bands: BandFiles, rows: Array, similarity: float) -> Array:
    """Return pairs of similar rows, int64 [P, 2], the smaller first.

    rows: int64, the rows to compare, sorted. A row is compared with the first row of its bucket and the one before it
    there, so that many equal rows do not become many pairs.
    """
    found = [np.zeros((0, 2), np.int64)]
    for n in range(BANDS):
        keys = bands.band(n)[rows]
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        first = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0))
        later = np.flatnonzero(same) + 1
        for before in (first[later], later - 1):
            found.append(np.stack([rows[order[before]], rows[order[later]]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    matches = np.zeros(len(pairs), np.int64)
    for n in range(BANDS):
        lanes = bands.band(n).view(np.uint16).reshape(-1, BAND_ROWS)
        matches += (lanes[pairs[:, 0]] == lanes[pairs[:, 1]]).sum(axis=1)
    close: Array = pairs[matches >= similarity * BANDS * BAND_ROWS]
    return close
