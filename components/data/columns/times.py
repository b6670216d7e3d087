"""Time: a date, or a date with a time of day, in ISO 8601 or as a format stores it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.arrays import Array
from raypath.components.data.columns.kind import ColumnKind

_POINTS = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?=$|[ T])")


class Time(ColumnKind):
    """A date or a date with a time. Without a time zone it is taken as UTC; 03/04/2025 is rejected as ambiguous.

    31.03.2025 is read as day, month and year, the only order that is written with points.
    """

    name = "time"
    type = pa.timestamp("us", tz="UTC")
    wanted = "a date or time in ISO 8601, such as 2025-03-31T09:30:00+02:00, or 31.03.2025"
    request: ClassVar[Any] = str
    example: ClassVar[Any] = "2025-03-31T09:30:00Z"

    def parse(self, value: Any) -> datetime | None:
        """Accept dates, times and text in ISO 8601, or with a date such as 31.03.2025."""
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(_iso(value.strip()))
            except ValueError:
                return None
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            return None
        try:
            return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
        except OverflowError:
            return None

    def render(self, value: Any) -> str:
        """Return the date and time without seconds; the date alone at midnight."""
        return f"{value:%Y-%m-%d}" if (value.hour, value.minute) == (0, 0) else f"{value:%Y-%m-%d %H:%M}"

    def tensor(self, column: pa.Array) -> Array:
        """Convert to days since 1970, NaN for a missing value, float32 [N, 1]."""
        micros = column.cast(pa.int64()).cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.asarray(micros / 86_400e6, np.float32)[:, None]

    def describe(self, column: pa.Array) -> dict[str, float]:
        """Add the first and the last time, in seconds since 1970."""
        ends = pc.min_max(column.cast(pa.int64()))
        found = {name: float(ends[name].as_py() or 0) / 1e6 for name in ("min", "max")}
        return {**super().describe(column), **found}


def _iso(text: str) -> str:
    """Rewrite a date such as 31.03.2025 at the beginning as 2025-03-31."""
    found = _POINTS.match(text)
    if found is None:
        return text
    day, month, year = found.groups()
    return f"{year}-{month:0>2}-{day:0>2}{text[found.end() :]}"
