"""Statistics of the evaluation report against slow or published ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact, mannwhitneyu

from raypath.components.evaluation.calibration import at_temperature, fit_temperature, reliability, temperature_helps
from raypath.components.evaluation.metrics import calibration_error
from raypath.components.evaluation.proportions import f1_interval, wilson
from raypath.components.evaluation.slices import MIN_ROWS, holm, slice_tests


def test_wilson_interval_of_published_values() -> None:
    """Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    low, high = wilson(np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29]))
    np.testing.assert_allclose(low, [0.2553, 0.0624, 0.0, 0.0061], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1605, 0.1611, 0.1718], atol=5e-5)
    assert [float(end) for end in wilson(np.array(0), np.array(0))] == [0.0, 1.0]


def test_f1_interval_covers_the_true_f1() -> None:
    """Of 2,000 samples of 200 rows, about 95% of the intervals have the F1 that the shares give."""
    shares = np.array([0.15, 0.05, 0.1, 0.7])  # both, class only, predicted only, neither
    drawn = np.random.default_rng(0).multinomial(200, shares, size=2_000)
    low, high = f1_interval(drawn[:, 0], drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2])
    true = 2 * 0.15 / (0.2 + 0.25)
    assert 0.93 < float(((low <= true) & (true <= high)).mean()) < 0.975


def test_slices_are_tested_like_scipy_does() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(-1, 4, 300)
    right = (rng.random(300) < np.where(codes == 2, 0.5, 0.8)).astype(np.float64)
    shares = np.round(rng.random(300), 1)
    binary, ranked = slice_tests(right, codes, 4), slice_tests(shares, codes, 4)
    for n in range(4):
        inside, outside = right[codes == n], right[codes != n]
        table = [[inside.sum(), len(inside) - inside.sum()], [outside.sum(), len(outside) - outside.sum()]]
        assert binary[n] == pytest.approx(fisher_exact(table, alternative="less").pvalue)
        wanted = mannwhitneyu(shares[codes == n], shares[codes != n], alternative="less", method="asymptotic").pvalue
        assert ranked[n] == pytest.approx(wanted)
    few = np.where(np.arange(300) < MIN_ROWS - 1, 0, 1)
    assert np.isnan(slice_tests(right, few, 2)).all(), "too few rows, or too few others"


def test_holm_worked_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.04, 0.03])), [0.03, np.nan, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_no_more_than_one_in_twenty_reports_names_a_slice_by_luck() -> None:
    rng = np.random.default_rng(2)
    named = 0
    for _ in range(400):
        right = (rng.random(300) < 0.8).astype(np.float64)
        tests = [slice_tests(right, rng.integers(0, size, 300), size) for size in (4, 3, 8, 2)]
        named += bool((holm(np.concatenate(tests)) < 0.05).any())
    assert named <= 30  # 20 expected at most; 30 has a chance of 1.2% at a true 5%


def test_temperature_recovers_what_was_done_to_the_logits() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(3_000, 4)) * 2
    honest = at_temperature(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 1.0)
    targets = np.array([rng.choice(4, p=row) for row in honest])
    sharp = at_temperature(honest, 1 / 2.5)
    assert fit_temperature(targets, sharp) == pytest.approx(2.5, rel=0.1)
    assert temperature_helps(targets, sharp)
    assert not temperature_helps(targets, honest)
    assert not temperature_helps(targets[:10], sharp[:10])
    cooled = at_temperature(sharp, fit_temperature(targets, sharp))
    assert calibration_error(targets, cooled) < 0.03 < calibration_error(targets, sharp)


def test_bins_hold_the_calibration_error() -> None:
    rng = np.random.default_rng(4)
    probabilities = rng.dirichlet([1, 1, 1], 500)
    targets = rng.integers(0, 3, 500)
    bins = reliability(targets, probabilities)
    gap = (bins.rows * np.abs(bins.accuracy - bins.confidence)).sum() / 500
    assert gap == pytest.approx(calibration_error(targets, probabilities))
