"""Simulate promotion by live requests: how often equal, slower and erring versions are promoted (`python -m
tests.bench.live_promotions`).

Requests are drawn in both versions alike: whether their predictions agree, the ratio of their latencies (log-normal)
and whether each fails. The counts are looked at after every 20 requests, as an endpoint looks at them every 5 seconds.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from raypath.components.serving.live.counts import LiveCounts
from raypath.components.serving.live.decision import LONGEST, LiveRules, decide_live

RULES = LiveRules()
EVERY = 20
"""Requests between two looks."""
SPREAD = 0.4
"""Standard deviation of the log of the ratio of two latencies."""
ERRORS = 0.002
"""Rate of errors of the champion."""


@dataclass(frozen=True)
class Scenario:
    """A challenger as it really is."""

    name: str
    agreement: float = 0.98
    latency: float = 1.0
    errors: float = 0.0
    """Rate of errors above the champion's."""


SCENARIOS = (
    Scenario("equal, agreement 98%"),
    Scenario("equal, agreement 97%", agreement=0.97),
    Scenario("agreement 95%, the least allowed", agreement=0.95),
    Scenario("agreement 93%", agreement=0.93),
    Scenario("latency 1.1 times, the most allowed", latency=1.1),
    Scenario("latency 1.2 times", latency=1.2),
    Scenario("latency 2 times", latency=2.0),
    Scenario("1 point more errors, the most allowed", errors=0.01),
    Scenario("2 points more errors", errors=0.02),
    Scenario("10 points more errors", errors=0.1),
    Scenario("all fail", errors=1 - ERRORS),
)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a simulated test: promoted or not, and the requests that it took."""

    promoted: bool
    requests: int


def simulate(scenario: Scenario, rng: np.random.Generator, rules: LiveRules = RULES, every: int = EVERY) -> Outcome:
    """Run one test to its decision."""
    counts, sent = LiveCounts(), 0
    while sent <= 2 * LONGEST * rules.requests:
        failed = rng.random((2, every)) < [[ERRORS], [ERRORS + scenario.errors]]
        both = int((~failed.any(axis=0)).sum())
        logs = rng.normal(np.log(scenario.latency), SPREAD, both)
        counts.champion.requests += every
        counts.champion.failed += int(failed[0].sum())
        counts.challenger.requests += every
        counts.challenger.failed += int(failed[1].sum())
        counts.requests += both
        counts.agreed += float((rng.random(both) < scenario.agreement).sum())
        counts.latency.count += both
        counts.latency.total += float(logs.sum())
        counts.latency.squares += float((logs**2).sum())
        sent += every
        if (decision := decide_live(counts, rules, "shadow", "version 1")) is not None:
            return Outcome(decision.promote, sent)
    return Outcome(False, sent)


def rates(scenario: Scenario, trials: int, rules: LiveRules = RULES) -> tuple[float, float]:
    """Return the share of tests that promote, and the median number of requests to a decision."""
    rng = np.random.default_rng(list(scenario.name.encode()))
    found = [simulate(scenario, rng, rules) for _ in range(trials)]
    return float(np.mean([each.promoted for each in found])), float(np.median([each.requests for each in found]))


def main() -> None:
    """Print the table of docs/promotion.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    trials = parser.parse_args().trials
    print("| the version in truth | promoted | requests to a decision (median) |")
    print("| --- | ---: | ---: |")
    for scenario in SCENARIOS:
        promoted, requests = rates(scenario, trials)
        print(f"| {scenario.name} | {promoted:.1%} | {requests:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
