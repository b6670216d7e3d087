"""Promotion by evidence: decide from a paired comparison with the champion, and give the reason as one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raypath.components.evaluation.paired import Comparison
from raypath.components.reports.evaluation.comparison import ComparisonReport, RowChange

CHEAPER = 1.1
"""Speed of a version that is cheaper to serve, relative to the champion's: speeds of two measurements differ by a few
percent."""
FEW_ROWS = 100
"""Rows of a test split below which the reason says that they are few."""


@dataclass(frozen=True)
class Rules:
    """Thresholds of the gate; see RegisterParams."""

    confidence: float = 0.9
    margin: float = 0.01
    slice_margin: float = 0.05
    beat_baseline: bool = False


@dataclass(frozen=True)
class Slice:
    """Comparison on some rows of the test split, by the mean score of a row (`Outcomes.scores`)."""

    name: str
    comparison: Comparison


@dataclass(frozen=True)
class Evidence:
    """Comparison of a new version with the champion on one test split."""

    metric: str
    comparison: Comparison
    slices: Sequence[Slice] = ()
    speeds: tuple[float, float] = (0.0, 0.0)
    """Rows per second of the new version and the champion, measured on the same kind of machine; 0 if unknown."""
    note: str = ""
    """How the champion was evaluated, if not at its registration."""
    won: Sequence[RowChange] = ()
    lost: Sequence[RowChange] = ()
    """Some rows that the new version, or the champion, predicts better: those with the largest difference."""

    def is_cheaper(self) -> bool:
        """Return True if the new version is measurably faster."""
        new, old = self.speeds
        return old > 0 and new >= CHEAPER * old


@dataclass(frozen=True)
class Decision:
    """Decision on a new version."""

    promote: bool
    reason: str
    """One sentence with its numbers."""
    chance: float = 0.0
    """Chance of being better on the test rows; 0 if that is not known, or a slice fell."""


def comparison_report(evidence: Evidence, decision: Decision, rival: str, source: str) -> ComparisonReport:
    """Return the contents of the page on a comparison. source: URI of the rows."""
    return ComparisonReport(
        source=source,
        metric=evidence.metric,
        rival=rival,
        promoted=decision.promote,
        reason=decision.reason,
        whole=evidence.comparison,
        slices={each.name: each.comparison for each in evidence.slices},
        won=list(evidence.won),
        lost=list(evidence.lost),
    )


def decide(evidence: Evidence, rival: str, rules: Rules) -> Decision:
    """Decide whether a new version replaces `rival`, the champion.

    It does if the chance of being better is at least `rules.confidence`, or if it is cheaper to serve and the 95%
    interval excludes a loss of `rules.margin`. It does not if a slice fell by more than `rules.slice_margin` and is
    worse with at least that confidence, so that a few rows of a small slice decide nothing.
    """
    found = evidence.comparison
    better = found.chance >= rules.confidence
    cheaper = found.low > -rules.margin and evidence.is_cheaper()
    fallen = [each for each in evidence.slices if _fell(each.comparison, rules)]
    if cheaper and not better:
        new, old = evidence.speeds
        why = f"not worse by {number(rules.margin)} or more, and cheaper to serve at {new:.0f} rows/s against {old:.0f}"
    else:
        why = f"chance of being better {percent(found.chance)}, wanted {percent(rules.confidence)}"
    promote = (better or cheaper) and not fallen
    if fallen and (better or cheaper):
        worst = min(fallen, key=lambda each: each.comparison.gain)
        rows = f"{worst.comparison.rows:,} rows"
        why += f", but {worst.name} ({rows}) fell by {number(-worst.comparison.gain)}, more than "
        why += number(rules.slice_margin)
    return Decision(promote, f"{_facts(evidence, rival)}: {why}{_few(found.rows)}", 0.0 if fallen else found.chance)


def percent(share: float) -> str:
    """Format a share, rounded down, so that 0.8999 is not shown as a chance of 90%."""
    return f"{math.floor(share * 1000 + 1e-9) / 10:g}%"


def number(value: float) -> str:
    """Format a metric with four digits, or more where it would look like 0."""
    return next((text for d in (4, 6, 9) if float(text := f"{value:.{d}f}") or not value), f"{value:.3g}")


def _fell(found: Comparison, rules: Rules) -> bool:
    return found.gain < -rules.slice_margin and found.chance <= 1 - rules.confidence


def _facts(evidence: Evidence, rival: str) -> str:
    """State both metrics, their difference with its interval, and the rows won and lost."""
    found = evidence.comparison
    new, old = f"{found.new:.4f}", f"{found.old:.4f}"
    by, low, high = found.gain, found.low, found.high
    if by < 0:
        by, low, high = -by, -high, -low
    word = "equal" if not by else f"{'better' if found.gain > 0 else 'worse'} by {number(by)}"
    change = f"{word} (95% interval {number(low)} to {number(high)})"
    counts = "" if found.tied == found.rows else f" with {found.won:,} won and {found.lost:,} lost"
    rows = f"{found.rows:,} test row{'' if found.rows == 1 else 's'}"
    note = f" ({evidence.note})" if evidence.note else ""
    return f"{evidence.metric} {new} against {old} of {rival}{note}, {change} on the same {rows}{counts}"


def _few(rows: int) -> str:
    return f"; {rows} rows show large differences only" if rows < FEW_ROWS else ""
