"""The simulation of the gate on a few seeded pairs of models; the table in the docs has more of them."""

import numpy as np
import pytest
from scipy.stats import binom, poisson  # type: ignore[import-untyped]

from tests.bench.promotions import ACCURACY, draw_pair, rate


@pytest.mark.parametrize(
    ("rows", "agreement", "gain", "metric", "wanted"),
    [
        (1000, 0.95, 0.0, "accuracy", 0.09),
        (1000, 0.95, 0.0, "macro_f1", 0.10),
        (1000, 0.995, 0.0, "accuracy", 0.08),
        (1000, 0.95, 0.02, "accuracy", 0.97),
        (200, 0.95, 0.02, "accuracy", 0.4),
    ],
)
def test_equal_models_are_rarely_promoted_and_better_ones_often(
    rows: int, agreement: float, gain: float, metric: str, wanted: float
) -> None:
    assert rate(rows, agreement, gain, metric, trials=100) == wanted


@pytest.mark.parametrize("differing", [0.5, 2, 4, 8, 15, 30, 40, 60])
def test_no_number_of_differing_rows_promotes_more_than_a_tenth_of_equal_models(differing: float) -> None:
    """Exactly, for accuracy: rows won and lost are independent Poisson numbers, each with half the mean."""
    counts = np.arange(100)
    won, lost = np.meshgrid(counts, counts, indexing="ij")
    chance = 1 - binom.sf(won, won + lost, 0.5) - binom.pmf(won, won + lost, 0.5) / 2
    seen = np.outer(*(poisson.pmf(counts, differing / 2),) * 2)
    assert seen[chance >= 0.9].sum() <= 0.1


def test_drawn_models_agree_and_differ_as_asked() -> None:
    targets, new, old = draw_pair(np.random.default_rng(0), 100_000, 0.9, 0.02)
    assert (new == old).mean() == pytest.approx(0.9, abs=0.005)
    assert (old == targets).mean() == pytest.approx(ACCURACY, abs=0.005)
    assert (new == targets).mean() == pytest.approx(ACCURACY + 0.02, abs=0.005)
