"""Confidence sequences: limits by hand, and how often a true value is ever excluded while one looks at every step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raypath.components.evaluation.sequential import (
    RARE,
    Interval,
    difference_interval,
    mean_interval,
    share_interval,
)


def test_a_limit_is_where_the_mixture_is_twenty_times_as_likely() -> None:
    from scipy.special import betaln  # type: ignore[import-untyped]

    a, b = RARE
    for total, count in ((20, 1000), (3, 40), (0.5, 12)):
        found = share_interval(total, count)
        for limit in (found.low, found.high):
            log = betaln(a + total, b + count - total) - betaln(a, b)
            log -= total * math.log(limit) + (count - total) * math.log(1 - limit)
            assert log == pytest.approx(math.log(20), abs=1e-6)
        assert found.low < found.value < found.high


def test_without_an_event_or_without_observations_the_limit_is_the_end() -> None:
    assert share_interval(0, 0) == Interval(0.0, 0.0, 1.0)
    none = share_interval(0, 1000)
    assert (none.low, round(none.high, 4)) == (0.0, 0.005)
    assert share_interval(5, 5).high == 1.0
    assert mean_interval(3.0, 9.0, 1) == Interval(3.0, -math.inf, math.inf)


def test_a_difference_is_as_wide_as_both_shares() -> None:
    one, two = Interval(0.3, 0.2, 0.5), Interval(0.1, 0.05, 0.25)
    found = difference_interval(one, two)
    assert (found.value, found.low) == pytest.approx((0.2, 0.2 - math.hypot(0.1, 0.15)))
    assert found.high == pytest.approx(0.2 + math.hypot(0.2, 0.05))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_the_true_share_is_rarely_excluded_at_any_of_1000_looks(share: float) -> None:
    rng = np.random.default_rng(0)
    totals = np.cumsum(rng.random((100, 1000)) < share, axis=1)
    excluded = 0
    for row in totals:
        looks = (share_interval(float(row[n - 1]), n) for n in range(10, 1001, 15))
        excluded += any(not each.low <= share <= each.high for each in looks)
    assert excluded <= 5


def test_and_the_true_mean() -> None:
    rng = np.random.default_rng(1)
    values = rng.gamma(2.0, 1.0, (200, 2000))  # skewed
    totals, squares = np.cumsum(values, axis=1), np.cumsum(values**2, axis=1)
    excluded = 0
    for one, two in zip(totals, squares, strict=True):
        looks = (mean_interval(one[n - 1], two[n - 1], n) for n in range(30, 2001, 10))
        excluded += any(not each.low <= 2.0 <= each.high for each in looks)
    assert excluded <= 10
