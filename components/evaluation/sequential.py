"""Confidence sequences: intervals that hold at every number of observations at once.

An interval for one fixed number of observations is wrong more often than it says when it is looked at again and again,
as live requests arrive. These may be looked at whenever, and a decision taken at any of the looks:

- a share of bounded observations: the mixture martingale of the beta-binomial (Robbins, Statistical Methods Related to
  the Law of the Iterated Logarithm, 1970; Howard et al., Time-uniform, Nonparametric, Nonasymptotic Confidence
  Sequences, 2021), exact for observations from 0 to 1;
- a difference of two shares: their limits by the square-and-add method (Newcombe, Interval Estimation for the
  Difference Between Independent Proportions, 1998);
- a mean: the asymptotic confidence sequence (Waudby-Smith et al., Time-uniform Central Limit Theory, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LEVEL = 0.95
RARE = (0.5, 20.0)
"""Parameters of the beta mixture: events that are rare, such as errors and disagreements."""
TUNED = 500
"""Observations at which the interval of a mean is nearly as narrow as one for a fixed number."""
_STEPS = 50


@dataclass(frozen=True)
class Interval:
    """An estimate with its limits."""

    value: float
    low: float
    high: float


def share_interval(total: float, count: int, level: float = LEVEL) -> Interval:
    """Return the mean of `count` observations from 0 to 1, of this total, such as the rate of errors."""
    if not count:
        return Interval(0.0, 0.0, 1.0)
    a, b = RARE
    value, rest = total / count, count - total
    mixture = _log_beta(a + total, b + rest) - _log_beta(a, b)
    limit = -math.log(1 - level)

    def excluded(share: float) -> bool:
        return mixture - _weighted_log(total, share) - _weighted_log(rest, 1 - share) >= limit

    return Interval(value, _bisect(excluded, 0.0, value), _bisect(excluded, 1.0, value))


def difference_interval(first: Interval, second: Interval) -> Interval:
    """Return first - second for two independent shares."""
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    value = first.value - second.value
    return Interval(value, value - below, value + above)


def mean_interval(total: float, squares: float, count: int, level: float = LEVEL) -> Interval:
    """Return the mean of `count` observations, given their sum and their sum of squares; from 30 on it is reliable."""
    if count < 2:
        return Interval(total, -math.inf, math.inf)
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean * mean, 0.0) * count / (count - 1))
    times = count / TUNED  # t rho^2 in the paper
    width = math.sqrt(2 * (1 + 1 / times) * math.log(math.sqrt(times + 1) / (1 - level)) / count) * deviation
    return Interval(mean, mean - width, mean + width)


def _bisect(excluded: Callable[[float], bool], outside: float, inside: float) -> float:
    """Return the limit between an excluded share and an included one; `outside` where it is included too."""
    if not excluded(outside):
        return outside
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if excluded(middle) else (outside, middle)
    return outside


def _weighted_log(weight: float, share: float) -> float:
    """Return weight * log(share), 0 for a weight of 0."""
    if not weight:
        return 0.0
    return weight * math.log(share) if share > 0 else -math.inf


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
