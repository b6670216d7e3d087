"""Make a finding from a mask of rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.inspection.report import Finding, Severity, Value
from raypath.components.inspection.rows import SHOWN, position_type
from raypath.components.inspection.statistics import Statistics

Found = tuple[Finding, Array]
"""A finding, and the positions of all its rows, int32 or int64."""


def finding(
    kind: str,
    severity: Severity,
    text: str,
    found: Statistics,
    rows: Array,
    settings: Mapping[str, Value] | None = None,
    *,
    count: int | None = None,
    examples: list[str] | None = None,
) -> Found:
    """Make a finding of these rows. count: default the number of rows."""
    made = Finding(
        kind=kind,
        severity=severity,
        text=text,
        count=len(rows) if count is None else count,
        rows=found.places.some(rows[:SHOWN]),
        settings=dict(settings or {}),
        examples=examples or [],
    )
    return made, np.asarray(rows, position_type(found.rows))


def plural(number: int, noun: str, many: str = "") -> str:
    """Format a number with its noun: 1 row, 2,000 rows."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def verb(number: int, one: str, many: str) -> str:
    """Choose the form that agrees with a number: 1 row is, 2 rows are."""
    return one if number == 1 else many


def percent(part: int, whole: int) -> str:
    """Format a share: 12%, 0.4% or <0.1%."""
    share = 100 * part / max(whole, 1)
    if 0 < share < 0.1:
        return "<0.1%"
    return f"{share:.1f}%" if share < 10 else f"{share:.0f}%"
