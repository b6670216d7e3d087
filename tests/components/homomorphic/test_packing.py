"""Packing: a product in slots, added up by rotations, is the matrix product, and no slot has anything else."""

from __future__ import annotations

import numpy as np
import pytest

from raypath.components.homomorphic.packing import MAX_CIPHERTEXTS, MAX_PRODUCTS, choose_packing

SHAPES = [(384, 10, 1), (384, 2, 8), (384, 10, 16), (32, 3, 4), (768, 100, 1), (5, 1, 2), (384, 1000, 1), (4096, 2, 1)]


@pytest.mark.parametrize(("width", "classes", "texts"), SHAPES)
def test_products_added_up_over_blocks_are_the_scores_in_every_slot(width: int, classes: int, texts: int) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(classes, width)), rng.normal(size=classes)
    features = rng.normal(size=(texts, width))
    packing = choose_packing(width, classes, texts)
    assert packing is not None
    assert max(packing.inputs, packing.results) <= MAX_CIPHERTEXTS
    assert packing.inputs * packing.results <= MAX_PRODUCTS
    total = (packing.pack_weights(weight) * packing.pack_features(features)).sum(axis=1)  # [results, slots]
    for step in packing.rotations:
        total = total + np.roll(total, -step, axis=1)
    total = total + packing.pack_bias(bias)
    assert packing.unpack_scores(total, texts) == pytest.approx(features @ weight.T + bias)
    blocks = total.reshape(packing.results, packing.blocks, -1)
    assert blocks == pytest.approx(np.broadcast_to(blocks[:, :1], blocks.shape))


@pytest.mark.parametrize(("width", "classes", "texts"), [(384, 10, 3), (384, 10, 0), (384, 10, 4096), (9000, 5000, 1)])
def test_what_does_not_fit_has_no_packing(width: int, classes: int, texts: int) -> None:
    assert choose_packing(width, classes, texts) is None
