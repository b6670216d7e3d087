"""Confident learning on made-up features: flipped labels are found, and others are not."""

from __future__ import annotations

import numpy as np

from raypath.components.inspection.findings.model import label_errors, out_of_fold


def test_flipped_labels_are_found() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    features = (np.eye(3)[labels] @ rng.normal(size=(3, 16)) * 3 + rng.normal(size=(600, 16))).astype(np.float32)
    given = labels.copy()
    flipped = rng.choice(600, 30, replace=False)
    given[flipped] = (given[flipped] + 1) % 3
    wrong, order = label_errors(out_of_fold(features, given, 0), given)
    found = set(np.flatnonzero(wrong).tolist())
    assert len(found & set(flipped.tolist())) >= 27
    assert len(found - set(flipped.tolist())) <= 4
    assert sorted(order.tolist()) == list(range(len(found)))


def test_noise_alone_is_not_certain() -> None:
    """By hand: the thresholds are 0.7 and 0.8; the last row of class 0 is above that of class 1 only."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.2, 0.8]])
    wrong, order = label_errors(probabilities, np.array([0, 0, 0, 0, 1, 1]))
    assert wrong.tolist() == [False, False, False, True, False, False]
    assert order.tolist() == [0]
    wrong, _ = label_errors(probabilities * 0.8 + 0.1, np.array([0, 0, 0, 0, 1, 1]))
    assert not wrong.any(), "0.82 is less than 0.9"
    wrong, _ = label_errors(np.full((6, 2), 0.5), np.array([0, 0, 0, 1, 1, 1]))
    assert not wrong.any()
