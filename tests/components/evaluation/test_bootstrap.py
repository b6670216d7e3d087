"""Intervals of sets and of numbers against drawing rows one by one."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, r2_score

from raypath.components.evaluation.bootstrap import number_intervals, number_statistics, set_intervals

DICE = np.random.default_rng(11)


def test_figures_of_a_resample_are_those_of_its_rows() -> None:
    targets = DICE.integers(0, 6, 25).astype(np.float64) + 1e6  # ties, and far from 0
    predictions = targets + DICE.integers(-3, 4, 25)
    draws = DICE.multinomial(25, np.full(25, 1 / 25), size=20)
    for drawn, (r2, mae, spearman) in zip(draws, number_statistics(draws, targets, predictions), strict=True):
        t, g = np.repeat(targets, drawn), np.repeat(predictions, drawn)
        assert r2 == pytest.approx(r2_score(t, g))
        assert mae == pytest.approx(np.abs(t - g).mean())
        assert spearman == pytest.approx(stats.spearmanr(t, g).statistic)


def test_a_resample_of_equal_targets_counts_0() -> None:
    draws = np.array([[3, 0, 0], [0, 3, 0]])
    found = number_statistics(draws, np.array([0.1, 0.2, 0.7]), np.array([0.3, 0.2, 0.1]))
    np.testing.assert_allclose(found, [[0.0, 0.2, 0.0], [0.0, 0.0, 0.0]], atol=1e-12)


def test_intervals_of_numbers_agree_with_resampling_rows_one_by_one() -> None:
    targets = DICE.normal(size=(150, 2)) * [1.0, 40.0]
    predictions = targets + DICE.normal(size=(150, 2)) * [0.7, 20.0]
    slow = []
    for _ in range(800):
        rows = DICE.integers(0, 150, 150)
        t, g = targets[rows], predictions[rows]
        ranked = [stats.spearmanr(t[:, k], g[:, k]).statistic for k in range(2)]
        slow.append([r2_score(t, g), np.abs(t - g).mean(), np.mean(ranked)])
    wanted = np.quantile(slow, [0.025, 0.975], axis=0)
    found = number_intervals(targets, predictions, 3000, seed=0)
    got = [[found[f"{n}_{side}"] for n in ("r2", "mae", "spearman")] for side in ("low", "high")]
    np.testing.assert_allclose(got, wanted, rtol=0.06, atol=0.02)
    assert found == number_intervals(targets, predictions, 3000, seed=0)
    assert number_intervals(targets, predictions, 0, seed=0) == {}


def test_intervals_of_sets_agree_with_resampling_rows_one_by_one() -> None:
    targets = (DICE.random((200, 5)) < 0.3).astype(np.float32)
    predictions = np.where(DICE.random((200, 5)) < 0.85, targets, 1 - targets).astype(int)
    slow = []
    for _ in range(800):
        rows = DICE.integers(0, 200, 200)
        t, g = targets[rows].astype(int), predictions[rows]
        slow.append([f1_score(t, g, average="micro"), (t == g).all(axis=1).mean()])
    wanted = np.quantile(slow, [0.025, 0.975], axis=0)
    found = set_intervals(targets, predictions, 3000, seed=0)
    got = [[found[f"{n}_{side}"] for n in ("micro_f1", "subset_accuracy")] for side in ("low", "high")]
    np.testing.assert_allclose(got, wanted, atol=0.015)
    assert set_intervals(targets, predictions, 0, seed=0) == {}
