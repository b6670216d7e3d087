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


def noun(found: Statistics) -> str:
    """Return the word for what a row has."""
    return "conversation" if found.has_conversations else "text"


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
