"""Sampling and noise: their distributions, and that they follow from the key alone."""

import secrets
import stat
from pathlib import Path

import numpy as np
from scipy.stats import kstest

from raypath.components.training.differential_privacy.secret_random import FILE, SecretRandom, key_id, load_key
from raypath.components.training.differential_privacy.units import PoissonPlan, Units


def test_rows_are_drawn_independently_of_each_other_and_of_the_step() -> None:
    random, rows, rate, steps = SecretRandom(bytes(32)), 2_000, 0.1, 400
    drawn = np.zeros((steps, rows))
    for step in range(steps):
        drawn[step, random.sample(step, rows, rate)] = 1
    sizes = drawn.sum(axis=1)
    # Binomial: mean and variance of the number of rows in a step, four standard errors wide.
    assert abs(sizes.mean() - rows * rate) < 4 * np.sqrt(rows * rate * (1 - rate) / steps)
    assert 0.75 < sizes.var() / (rows * rate * (1 - rate)) < 1.3
    assert abs(drawn.mean(axis=0) - rate).max() < 6 * np.sqrt(rate * (1 - rate) / steps)
    together = (drawn[:, 0::2] * drawn[:, 1::2]).mean()
    assert abs(together - rate**2) < 5 * rate / np.sqrt(steps * rows / 2)


def test_rates_of_none_and_of_all_rows() -> None:
    random = SecretRandom(bytes(32))
    assert len(random.sample(0, 1000, 1.0)) == 1000
    assert not len(random.sample(0, 1000, 0.0))


def test_noise_is_standard_normal() -> None:
    noise = SecretRandom(bytes(32)).noise(3, 100_000)
    assert kstest(noise, "norm").pvalue > 1e-3
    assert abs(noise.std() - 1) < 0.01


def test_numbers_follow_from_key_purpose_and_step() -> None:
    one, other = SecretRandom(bytes(32)), SecretRandom(secrets.token_bytes(32))
    assert np.array_equal(one.noise(1, 8), SecretRandom(bytes(32)).noise(1, 8))
    assert not np.array_equal(one.noise(1, 8), one.noise(2, 8))
    assert not np.array_equal(one.noise(1, 8), other.noise(1, 8))
    assert not np.array_equal(one._integers("noise", 1, 8), one._integers("sample", 1, 8))


def test_a_key_is_kept_for_the_owner_alone_and_not_shown(tmp_path: Path) -> None:
    key = load_key(tmp_path)
    assert load_key(tmp_path) == key != load_key(None)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert key.hex() not in repr(SecretRandom(key)) + key_id(key)


def test_groups_are_drawn_together_and_bounded() -> None:
    units = Units.groups(["b", "a", "b", "c", "b", "a"], most=2)
    assert len(units) == 3
    assert units.of_row.tolist() == [1, 0, 1, 2, -1, 0]
    assert units.left_out == 1
    plan = PoissonPlan(units, SecretRandom(bytes(32)), 0.5, 10, 60)
    assert len(plan) == 50
    drawn = {tuple(rows.tolist()) for rows in plan[:]}
    assert drawn == {(*a, *b, *c) for a in ((), (1, 5)) for b in ((), (0, 2)) for c in ((), (3,))}
