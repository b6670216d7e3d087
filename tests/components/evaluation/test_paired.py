"""Paired comparison: exact cases, symmetry, and agreement with resampling rows one by one."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import f1_score

from raypath.components.evaluation.outcomes import Outcomes, class_outcomes, mean_outcomes, repeated_outcomes
from raypath.components.evaluation.paired import compare


def _wins(won: int, lost: int, tied: int) -> tuple[Outcomes, Outcomes]:
    new = np.r_[np.ones(won), np.zeros(lost), np.ones(tied)]
    return mean_outcomes(new), mean_outcomes(np.r_[np.zeros(won), np.ones(lost), np.ones(tied)])


def test_equal_models_have_even_chances() -> None:
    found = compare(*_wins(0, 0, 50))
    assert (found.chance, found.gain, found.low, found.high) == (0.5, 0.0, 0.0, 0.0)
    assert (found.rows, found.won, found.lost, found.tied) == (50, 0, 0, 50)
    assert compare(*_wins(4, 4, 50)).chance == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("won", "lost"), [(2, 0), (3, 0), (4, 1), (6, 2), (30, 20), (2, 9)])
def test_the_randomization_is_the_sign_test_with_ties_halved(won: int, lost: int) -> None:
    found = compare(*_wins(won, lost, 100), seed=3)
    differ = won + lost
    assert found.randomization == pytest.approx(
        1 - binom.sf(won, differ, 0.5) - binom.pmf(won, differ, 0.5) / 2, abs=0.015
    )
    assert (found.won, found.lost, found.tied) == (won, lost, 100)
    assert found.gain == pytest.approx((won - lost) / found.rows)
    assert found.low <= found.gain <= found.high


def test_two_rows_won_and_none_lost_are_no_proof() -> None:
    found = compare(*_wins(2, 0, 200))
    assert found.bootstrap > 0.92
    assert found.chance == found.randomization == pytest.approx(0.875, abs=0.01)


def test_swapped_models_have_the_opposite_chance_and_the_seed_decides() -> None:
    new, old = _wins(14, 8, 80)
    there, back = compare(new, old), compare(old, new)
    assert there == compare(new, old)
    assert there.chance != compare(new, old, seed=1).chance
    assert back.chance == pytest.approx(1 - there.chance, abs=0.02)
    assert back.low == pytest.approx(-there.high, abs=0.01)


def test_lower_is_better_for_an_error() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=300)
    new, old = (mean_outcomes(np.abs(noise) * scale, lower=True) for scale in (0.9, 1.0))
    found = compare(new, old, lower=True)
    assert found.gain == pytest.approx(np.abs(noise).mean() * 0.1)
    assert 0 < found.low < found.gain < found.high
    assert (found.won, found.chance) == (300, 1.0)


def test_macro_f1_agrees_with_resampling_rows_one_by_one() -> None:
    rng = np.random.default_rng(2)
    targets = rng.integers(0, 3, 200)
    new, old = (np.where(rng.random(200) < share, targets, rng.integers(0, 3, 200)) for share in (0.75, 0.7))
    none, labels = np.zeros((200, 3)), ("a", "b", "c")
    slow = []
    for _ in range(300):
        rows = rng.integers(0, 200, 200)
        slow.append(np.subtract(*(f1_score(targets[rows], each[rows], average="macro") for each in (new, old))))
    outcomes = [class_outcomes("macro_f1", targets, each, none, labels) for each in (new, old)]
    found = compare(outcomes[0], outcomes[1])
    np.testing.assert_allclose([found.low, found.high], np.quantile(slow, [0.025, 0.975]), atol=0.015)
    assert found.bootstrap == pytest.approx((np.array(slow) > 0).mean(), abs=0.05)
    assert found.randomization == pytest.approx(found.bootstrap, abs=0.05)


def test_other_rows_are_rejected() -> None:
    with pytest.raises(ValueError, match="wanted the same rows"):
        compare(_wins(1, 0, 3)[0], _wins(1, 0, 4)[0])
    with pytest.raises(ValueError, match="at least 1"):
        compare(*_wins(0, 0, 0))


def test_a_metric_of_ones_own_is_computed_again_for_each_resample() -> None:
    rng = np.random.default_rng(4)
    targets = rng.integers(0, 2, 80)
    new, old = (np.eye(2)[np.where(rng.random(80) < share, targets, 1 - targets)] for share in (0.9, 0.75))

    def cost(there: np.ndarray, given: np.ndarray) -> float:
        return float((there != given.argmax(axis=1)).mean())

    own = [repeated_outcomes(cost, targets, each) for each in (new, old)]
    found = compare(own[0], own[1], lower=True)
    same = [mean_outcomes((each.argmax(axis=1) != targets).astype(float), lower=True) for each in (new, old)]
    wanted = compare(same[0], same[1], lower=True)
    assert (found.new, found.old) == (cost(targets, new), cost(targets, old))
    assert found.chance == pytest.approx(wanted.chance, abs=0.03)
    assert [found.low, found.high] == pytest.approx([wanted.low, wanted.high], abs=0.03)
    assert (found.won, found.lost, found.tied) == (0, 0, 80), "rows alone have no score"
