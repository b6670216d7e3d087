"""Epsilon of DP-SGD: against Opacus's own results, the closed form of one step, and the search for noise and steps."""

import math

import pytest
from scipy.stats import norm

from raypath.components.core.errors import ParamsError
from raypath.components.models.metadata import PrivacyEvent
from raypath.components.training.differential_privacy.accountant import epsilon_of, noise_for, steps_within


def _event(noise: float, rate: float, steps: int) -> PrivacyEvent:
    return PrivacyEvent(noise_multiplier=noise, sampling_rate=rate, steps=steps)


@pytest.mark.parametrize(
    ("events", "published"),
    [
        ([_event(1.0, 0.064, 312)], 7.7368),
        ([_event(0.6, 0.01, 2000)], 9.9642),
        ([_event(1.0, 0.064, 312), _event(2.0, 0.1, 200)], 8.6301),
    ],
)
def test_epsilon_is_that_of_opacus(events: list[PrivacyEvent], published: float) -> None:
    assert epsilon_of(events, 1e-5) == pytest.approx(published, abs=1e-3)


def test_one_step_on_all_rows_is_the_gaussian_mechanism() -> None:
    """Balle and Wang, 2018: delta of the Gaussian mechanism with sensitivity 1."""
    epsilon, noise = epsilon_of([_event(2.0, 1.0, 1)], 1e-5), 2.0
    a, b = 1 / (2 * noise), epsilon * noise
    exact = norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b)
    assert 0.9e-5 < exact <= 1e-5


def test_no_step_spends_nothing() -> None:
    assert epsilon_of([_event(1.0, 0.1, 0)], 1e-5) == 0.0


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_the_noise_is_the_least_that_is_enough(epsilon: float) -> None:
    noise = noise_for(epsilon, 1e-5, 0.0625, 320)
    assert epsilon_of([_event(noise, 0.0625, 320)], 1e-5) <= epsilon
    assert epsilon_of([_event(noise * 0.99, 0.0625, 320)], 1e-5) > epsilon


def test_what_was_spent_before_counts() -> None:
    before = [_event(1.0, 0.064, 100)]
    spent = epsilon_of(before, 1e-5)
    noise = noise_for(spent + 1, 1e-5, 0.064, 100, before)
    assert noise > 1.0
    with pytest.raises(ParamsError, match=r"epsilon=1 is too small for 100 steps; \d+\.\d\d of it are spent"):
        noise_for(1.0, 1e-5, 0.064, 100, before)


def test_steps_end_before_the_bound_is_exceeded() -> None:
    event = _event(1.0, 0.064, 1000)
    most = steps_within(5.0, 1e-5, event)
    assert epsilon_of([_event(1.0, 0.064, most)], 1e-5) <= 5.0 < epsilon_of([_event(1.0, 0.064, most + 1)], 1e-5)
    assert steps_within(0.01, 1e-5, event) == 0
