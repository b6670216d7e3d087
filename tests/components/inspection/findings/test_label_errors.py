"""Confident learning on made-up features: flipped labels are found, and others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raypath.components.inspection.collection.collector import collect
from raypath.components.inspection.findings.model import label_errors, model_findings, out_of_fold
from tests.components.inspection.planted import part, texts


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


def test_a_weak_model_lists_nothing_and_says_so(tmp_path: Path) -> None:
    rows, labels = texts(200)
    found = collect([part(rows, labels)], tmp_path)
    rng = np.random.default_rng(0)
    positions, given = np.arange(200), found.codes.astype(np.float32)
    skipped: list[str] = []
    noise = rng.normal(size=(200, 4)).astype(np.float32)
    assert [
        each for each, _ in model_findings(found, positions, noise, 0, skipped) if each.kind == "label_errors"
    ] == []
    assert len(skipped) == 1
    assert "trusted from 80% on" in skipped[0]
    flipped = given.copy()
    flipped[[3, 50]] = 1 - flipped[[3, 50]]
    strong = np.stack([8 * flipped - 4, *noise.T[:2] / 4], axis=1)
    [listed] = [each for each in model_findings(found, positions, strong, 0, skipped) if each[0].kind == "label_errors"]
    assert sorted(listed[1].tolist()) == [3, 50]
    assert listed[0].text.startswith("2 rows probably have a wrong label: a model of the other rows")
