"""The fitted head: the logistic regression of scikit-learn, its penalty chosen on held-out rows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from raypath.components.core.errors import DataError
from raypath.components.training.few_shot.fitted_head import STRENGTHS, best_strength, linear_layer


def _clouds(counts: list[int], spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of length one around one direction a class."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(counts)), counts)
    points = np.eye(16)[targets] + rng.normal(0, spread, (len(targets), 16))
    return points / np.linalg.norm(points, axis=1, keepdims=True), targets


@pytest.mark.parametrize("counts", [[9, 12], [9, 12, 7]])
def test_the_layer_gives_the_probabilities_of_the_regression(counts: list[int]) -> None:
    points, targets = _clouds(counts, 0.4)
    weight, bias = linear_layer(points, targets, np.ones(len(targets)), len(counts), 10.0, False)
    logits = points @ weight.T + bias
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = LogisticRegression(C=10.0, max_iter=2000).fit(points, targets).predict_proba(points)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_class_without_rows_is_never_predicted_and_a_single_class_is_an_error() -> None:
    points, targets = _clouds([9, 0, 12], 0.3)
    weight, bias = linear_layer(points, targets, np.ones(len(targets)), 4, 10.0, False)
    assert weight.shape == (4, 16)
    assert set((points @ weight.T + bias).argmax(axis=1)) == {0, 2}
    with pytest.raises(DataError, match="rows of one class only"):
        linear_layer(points[:9], targets[:9], np.ones(9), 4, 10.0, False)


def test_clean_features_get_a_weak_penalty_and_noise_a_strong_one() -> None:
    clean, targets = _clouds([16, 16, 16], 0.05)
    noise = np.random.default_rng(0).normal(size=clean.shape)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    ones = np.ones(len(targets))
    assert best_strength(clean, targets, ones, False, 0) == STRENGTHS[-1]
    assert best_strength(noise, targets, ones, False, 0) == STRENGTHS[0]


def test_rows_of_weight_0_do_not_count_and_balanced_classes_count_the_same() -> None:
    points, targets = _clouds([40, 6], 0.6)
    flipped = np.concatenate([targets, 1 - targets])
    twice, weights = np.concatenate([points, points]), np.repeat([1.0, 0.0], len(targets))
    plain = linear_layer(points, targets, np.ones(len(targets)), 2, 10.0, False)
    same = linear_layer(twice, flipped, weights, 2, 10.0, False)
    np.testing.assert_allclose(plain[0], same[0], atol=1e-3)
    balanced = linear_layer(points, targets, np.ones(len(targets)), 2, 10.0, True)
    assert balanced[1][1] - balanced[1][0] > plain[1][1] - plain[1][0], "the rare class counts more"


@pytest.mark.parametrize("counts", [[5, 1], [1, 1, 1], [2, 2, 1]])
def test_the_penalty_needs_two_classes_with_two_rows(counts: list[int]) -> None:
    points, targets = _clouds(counts, 0.2)
    assert best_strength(points, targets, np.ones(len(targets)), False, 0) in STRENGTHS
