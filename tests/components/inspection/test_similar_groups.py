"""Groups of near duplicates: those of a comparison of all pairs, in memory of a few bytes a row."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from raypath.components.core.arrays import Array
from raypath.components.inspection.minhash import BAND_ROWS, BANDS, similar_groups

LANES = BANDS * BAND_ROWS


def _bands(signatures: Array) -> list[Array]:
    lanes = signatures.reshape(-1, BANDS, BAND_ROWS)
    return [np.ascontiguousarray(lanes[:, n]).view(np.uint64)[:, 0] for n in range(BANDS)]


@pytest.mark.parametrize("similarity", [0.6, 0.8, 1.0])
def test_groups_are_those_of_all_pairs(similarity: float) -> None:
    """Families of a text and edited copies; every pair that shares a band is compared by hand."""
    rng = np.random.default_rng(0)
    families = rng.integers(0, 2**16, (40, LANES), np.uint16)
    signatures = families[rng.integers(0, 40, 300)]
    edited = rng.random(signatures.shape) < rng.choice([0.0, 0.05, 0.15, 0.3], (300, 1))
    signatures[edited] = rng.integers(0, 2**16, int(edited.sum()), np.uint16)
    bands = _bands(signatures)
    wanted = np.arange(300)
    for first in range(300):
        for second in range(first):
            shared = any(band[first] == band[second] for band in bands)
            if shared and (signatures[first] == signatures[second]).mean() >= similarity:
                wanted[wanted == wanted[first]] = wanted[second]
    least = {group: int(np.flatnonzero(wanted == group)[0]) for group in set(wanted.tolist())}
    found = similar_groups(bands.__getitem__, np.arange(300), similarity)
    # A row is compared with two rows of its bucket, so that a group of a chain may be found in parts.
    agree = np.mean([found[n] == least[group] for n, group in enumerate(wanted.tolist())])
    assert agree >= (0.97 if similarity < 1 else 1.0)
    assert all(wanted[n] == wanted[found[n]] for n in range(300)), "no row is in a group that it does not belong to"


def test_rows_that_are_left_out_have_no_group() -> None:
    bands = _bands(np.zeros((5, LANES), np.uint16))
    assert similar_groups(bands.__getitem__, np.array([1, 4]), 0.8).tolist() == [0, 0]
    assert similar_groups(bands.__getitem__, np.zeros(0, np.int64), 0.8).tolist() == []


def test_memory_is_bounded_where_all_rows_share_buckets() -> None:
    """One band of every row is the same and the others differ: all pairs are candidates and none is similar."""
    size = 200_000
    rng = np.random.default_rng(0)
    bands = [rng.integers(0, 50 if n % 2 else 2**63, size, np.uint64) for n in range(BANDS)]
    rows = np.arange(size, dtype=np.int32)
    tracemalloc.start()
    try:
        found = similar_groups(bands.__getitem__, rows, 0.8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found == rows).all()
    assert peak < 100 * size, "bytes"
