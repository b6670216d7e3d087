"""Decide on a challenger from live requests: promote it, send it back, or wait for more of them.

Live requests have no labels, so they cannot show that a version is better. They show that nothing gets worse: the
predictions agree with the champion's, and latency and errors stay within what is allowed. The test rows have to speak
for the version, see `serve.decide_chance`. Two good responses of language models may differ: agreement is reported, and
latency, errors and the length of the responses decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from raypath.components.evaluation.sequential import Interval, difference_interval, mean_interval, share_interval
from raypath.components.registry.evidence import Decision, percent
from raypath.components.serving.live.counts import LiveCounts, Moments, Trials

FEWEST_LATENCIES = 30
"""Requests from which the interval of the latency counts: it is a normal approximation."""
LONGEST = 10
"""Multiple of the minimum number of requests after which a challenger that is still not proven is sent back."""


@dataclass(frozen=True)
class LiveRules:
    """Thresholds of a live test; see ServeParams."""

    requests: int = 1_000
    agreement: float = 0.95
    """0 for language models, whose agreement decides nothing."""
    latency: float = 1.1
    errors: float = 0.01
    tokens: float = 0.0
    """0 for models that predict."""


@dataclass(frozen=True)
class _Check:
    """One quantity with its limit. fact, rule: as the sentence says them; rule "" for one without a limit."""

    fact: str
    rule: str
    holds: bool
    """The whole interval is within the limit."""
    fails: bool
    """The whole interval is beyond it."""


def decide_live(counts: LiveCounts, rules: LiveRules, role: str, rival: str) -> Decision | None:
    """Return the decision, None while there is none.

    A challenger is sent back as soon as the 95% interval of agreement, latency or errors is entirely beyond its limit.
    From `rules.requests` on it is promoted once all three are within theirs. The intervals hold at all times
    (`evaluation/sequential.py`), so it does not matter how often this is called.

    role: canary or shadow. rival: the champion, such as `version 3`.
    """
    lengths = [_tokens(counts, rules)] if rules.tokens else []
    checks = [_agreement(counts, rules, rival), _latency(counts, rules), *lengths, _errors(counts, rules)]
    failed = [each for each in checks if each.fails]
    enough = counts.requests >= rules.requests
    late = counts.requests >= LONGEST * rules.requests
    promote = enough and all(each.holds for each in checks)
    if not failed and not promote and not late:
        return None
    facts = ", ".join(each.fact for each in checks)
    many = f"{counts.requests:,} live request{'' if counts.requests == 1 else 's'}"
    start = f"as {role} on {many}: {facts}"
    if promote:
        return Decision(True, f"{start}; wanted {', '.join(each.rule for each in checks if each.rule)}")
    if failed:
        return Decision(False, f"{start}; wanted {', '.join(each.rule for each in failed)}")
    unproven = ", ".join(each.rule for each in checks if not each.holds)
    return Decision(False, f"{start}; not certain after {LONGEST} times {rules.requests:,} requests: {unproven}")


def progress(counts: LiveCounts, rules: LiveRules) -> str:
    """Describe how far a test is, such as `412 of 1,000 requests, agreement 98.1%`."""
    parts = [f"{counts.requests:,} of {rules.requests:,} requests"]
    if counts.requests:
        parts.append(f"agreement {percent(counts.agreed / counts.requests)}")
    if counts.latency.count >= FEWEST_LATENCIES:
        parts.append(f"latency {counts.latency.ratio:.2f} times the champion's")
    if counts.tokens.count >= FEWEST_LATENCIES:
        parts.append(f"length {counts.tokens.ratio:.2f} times")
    if counts.challenger.failed or counts.champion.failed:
        parts.append(f"errors {_rate(counts.challenger)} against {_rate(counts.champion)}")
    return ", ".join(parts)


def _agreement(counts: LiveCounts, rules: LiveRules, rival: str) -> _Check:
    rule = f"agreement of at least {percent(rules.agreement)}"
    differ = share_interval(counts.requests - counts.agreed, counts.requests)
    found = Interval(1 - differ.value, 1 - differ.high, 1 - differ.low)
    if not counts.requests:
        return _Check("no prediction compared yet", rule, holds=False, fails=False)
    span = f"{percent(found.low)} to {percent(found.high)}"
    if not rules.agreement:
        fact = f"agreement of the next tokens with {rival} {percent(found.value)} (95% interval {span})"
        return _Check(fact, "", holds=True, fails=False)
    return _Check(
        f"agreement with {rival} {percent(found.value)} (95% interval {span})",
        rule,
        found.low >= rules.agreement,
        found.high < rules.agreement,
    )


def _latency(counts: LiveCounts, rules: LiveRules) -> _Check:
    what = "latency a token" if rules.tokens else "latency"
    return _ratio(counts.latency, what, rules.latency)


def _tokens(counts: LiveCounts, rules: LiveRules) -> _Check:
    return _ratio(counts.tokens, "length", rules.tokens)


def _ratio(moments: Moments, what: str, most: float) -> _Check:
    rule = f"{what} of at most {most:g} times the champion's"
    if moments.count < FEWEST_LATENCIES:
        return _Check(f"{what} not known yet", rule, holds=False, fails=False)
    logs = mean_interval(moments.total, moments.squares, moments.count)
    found = Interval(*(math.exp(each) for each in (logs.value, logs.low, logs.high)))
    fact = f"{what} {found.value:.2f} times the champion's ({found.low:.2f} to {found.high:.2f})"
    return _Check(fact, rule, found.high <= most, found.low > most)


def _errors(counts: LiveCounts, rules: LiveRules) -> _Check:
    found = difference_interval(
        *(share_interval(each.failed, each.requests) for each in (counts.challenger, counts.champion))
    )
    span = f"{_points(found.low)} to {_points(found.high)} points"
    return _Check(
        f"errors {_rate(counts.challenger)} against {_rate(counts.champion)} ({span})",
        f"at most {_points(rules.errors)} points more errors",
        found.high <= rules.errors,
        found.low > rules.errors,
    )


def _points(value: float) -> str:
    return f"{value * 100:.1f}".replace("-0.0", "0.0")


def _rate(trials: Trials) -> str:
    return f"{trials.failed:,} of {trials.requests:,}"
