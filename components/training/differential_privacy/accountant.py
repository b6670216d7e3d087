"""Privacy loss of DP-SGD, by Opacus's accountant: the numerical composition of privacy loss random variables (Gopi,
Lee and Wutschitz, Numerical Composition of Differential Privacy, 2021).

Epsilon is an upper bound for neighbouring datasets of which one has one row (or group) more than the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from raypath.components.core.errors import ParamsError
from raypath.components.models.metadata import PrivacyEvent

ACCOUNTANT = "prv"
HIGHEST_NOISE = 1e3
"""Noise multiplier above which a bound is given up."""
PRECISION = 1e-3
"""Relative precision of the noise multiplier that is found; it is rounded up."""


def epsilon_of(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Return the epsilon of all events together at `delta`; 0 without steps."""
    events = [event for event in events if event.steps]
    if not events:
        return 0.0
    found = _prv()
    found.history = [(event.noise_multiplier, event.sampling_rate, event.steps) for event in events]
    # The bound of the accountant's own error is a part of the result. It takes the logarithm of 0 where all rows are in
    # a step.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(found.get_epsilon(delta=delta, eps_error=0.01))


def noise_for(epsilon: float, delta: float, rate: float, steps: int, before: Sequence[PrivacyEvent] = ()) -> float:
    """Return the least noise multiplier with which `steps` more steps stay within `epsilon`.

    before: events whose loss is a part of the bound. Raises ParamsError if no noise is enough.
    """

    def total(noise: float) -> float:
        event = PrivacyEvent(noise_multiplier=noise, sampling_rate=rate, steps=steps)
        return epsilon_of([*before, event], delta)

    spent = epsilon_of(before, delta)
    low, high = 0.0, 1.0
    while spent >= epsilon or total(high) > epsilon:
        low, high = high, 2 * high
        if high > HIGHEST_NOISE or spent >= epsilon:
            what = f"finetune.privacy.epsilon={epsilon:g} is too small for {steps:,} steps"
            what += f"; {spent:.2f} of it are spent" if spent else ""
            raise ParamsError(what, fix="raise finetune.privacy.epsilon or delta, or lower finetune.epochs")
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        # Very little noise takes the accountant long, and is none that anyone would use.
        low, high = (middle, high) if middle < 0.2 or total(middle) > epsilon else (low, middle)
    return high


def steps_within(epsilon: float, delta: float, event: PrivacyEvent, before: Sequence[PrivacyEvent] = ()) -> int:
    """Return how many of the steps of an event stay within `epsilon`, together with the events before it."""

    def fits(steps: int) -> bool:
        return epsilon_of([*before, event.model_copy(update={"steps": steps})], delta) <= epsilon

    if fits(event.steps):
        return event.steps
    low, high = 0, event.steps
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low if fits(low) else 0


def check_installed() -> None:
    """Raise ParamsError if Opacus is not installed."""
    _prv()


def _prv() -> Any:
    try:
        from opacus.accountants import PRVAccountant
    except ImportError:
        raise ParamsError("finetune.privacy needs the Python package opacus", fix="pip install 'raypath[dp]'") from None
    return PRVAccountant()
