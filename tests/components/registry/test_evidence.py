"""Decisions of the gate and their sentences, from comparisons with known rows."""

import numpy as np
import pytest

from raypath.components.evaluation.outcomes import mean_outcomes
from raypath.components.evaluation.paired import Comparison, compare
from raypath.components.registry.evidence import Evidence, Rules, Slice, decide, number, percent


def rows(won: int, lost: int, tied: int) -> Comparison:
    new = np.r_[np.ones(won), np.zeros(lost), np.ones(tied)]
    return compare(mean_outcomes(new), mean_outcomes(np.r_[np.zeros(won), np.ones(lost), np.ones(tied)]))


BETTER, EQUAL = rows(30, 10, 460), rows(6, 6, 988)


def test_a_better_version_is_promoted_with_its_figures() -> None:
    decision = decide(Evidence("accuracy", BETTER), "version 7", Rules())
    assert decision.promote
    assert decision.reason.startswith("accuracy 0.9800 against 0.9400 of version 7, better by 0.0400 (95% interval 0.0")
    figures = "30 won and 10 lost: chance of being better 99.8%, wanted 90%"
    assert decision.reason.endswith(f" on the same 500 test rows with {figures}")


def test_an_equal_version_is_promoted_only_if_it_is_cheaper_and_its_interval_excludes_the_margin() -> None:
    def decided(speeds: tuple[float, float], margin: float = 0.01) -> tuple[bool, str]:
        decision = decide(Evidence("accuracy", EQUAL, speeds=speeds), "version 1", Rules(margin=margin))
        return decision.promote, decision.reason

    assert decided((0.0, 0.0))[0] is False
    assert decided((105.0, 100.0))[0] is False, "the difference of two measurements"
    assert decided((100.0, 0.0))[0] is False, "the champion's speed is not known"
    assert decided((400.0, 250.0), margin=0.005)[0] is False
    promoted, reason = decided((400.0, 250.0))
    assert promoted
    assert reason.endswith(": not worse by 0.0100 or more, and cheaper to serve at 400 rows/s against 250")


def test_a_slice_that_falls_keeps_the_champion_but_not_by_noise() -> None:
    def decided(*slices: Slice) -> tuple[bool, str]:
        decision = decide(Evidence("accuracy", BETTER, slices), "version 1", Rules())
        return decision.promote, decision.reason

    assert decided(Slice("class a", rows(0, 1, 9)))[0], "one row of ten"
    assert decided(Slice("class a", rows(0, 4, 96)))[0], "within the margin"
    kept, reason = decided(Slice("class a", rows(0, 6, 44)), Slice("length 4 to 9 tokens", rows(2, 20, 78)))
    assert not kept
    assert reason.endswith("wanted 90%, but length 4 to 9 tokens (100 rows) fell by 0.1800, more than 0.0500")


def test_few_rows_are_named() -> None:
    reason = decide(Evidence("accuracy", rows(2, 1, 20)), "version 1", Rules()).reason
    assert reason.endswith("wanted 90%; 23 rows show large differences only")


@pytest.mark.parametrize(("share", "text"), [(0.8999, "89.9%"), (0.9, "90%"), (1.0, "100%"), (0.29, "29%")])
def test_a_chance_is_rounded_down(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_small_difference_is_no_zero() -> None:
    assert [number(value) for value in (0.0, 0.02, 0.000004, 1e-12)] == ["0.0000", "0.0200", "0.000004", "1e-12"]
