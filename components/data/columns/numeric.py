"""Numbers: parse a value of any format as a float, and pack several target columns into one list column."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.arrays import Array
from raypath.components.data.columns.kind import ColumnKind, to_float32

LARGEST = 3.4028234e38
"""Largest float32: training uses 32-bit targets, and a larger value would become infinite."""
NUMBER_PATTERN = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
"""Decimal notation; stricter than float(), which also accepts "nan", "inf" and "1_000"."""
_WITH_COMMA = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+(,\d*)?|\d+(,\d*)?|,\d+)([eE][-+]?\d+)?")


def to_numbers(values: Iterable[Any]) -> pa.Array:
    """Convert values to float64; null for a missing value or one that is not a finite number, see `parse_number`."""
    return pa.array([parse_number(value) for value in values], pa.float64())


def parse_number(value: Any) -> float | None:
    """Parse 3, 3.5 or " 3e5 " as a float; None for other text, booleans, NaN and values beyond float32."""
    if isinstance(value, str):
        cell = value.strip()
        number = float(cell) if NUMBER_PATTERN.fullmatch(cell) else math.nan
    elif isinstance(value, numbers.Real | Decimal) and not isinstance(value, bool):
        number = _as_float(value)
    else:
        return None
    return number if abs(number) <= LARGEST else None


def with_point(value: Any) -> Any:
    """Rewrite text such as 1.234,50 as 1234.50, and other text, such as 1.5, as one that is no number."""
    cell = value.strip() if isinstance(value, str) else ""
    if not cell:
        return value
    return cell.replace(".", "").replace(",", ".") if _WITH_COMMA.fullmatch(cell) else "no number"


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):
        return math.nan


def pack_targets(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Replace the float columns `names` by one list column `label`; a null becomes NaN."""
    if not names:
        return table
    values = np.column_stack([table[name].to_numpy() for name in names])  # float64 [N, T]
    offsets = pa.array(np.arange(0, values.size + 1, len(names), dtype=np.int32))
    lists = pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), pa.float64()))
    return table.drop_columns(list(names)).append_column("label", lists)


class Number(ColumnKind):
    """A finite number within the range of float32."""

    name = "number"
    type = pa.float64()
    wanted = "a finite number"
    request: ClassVar[Any] = float
    datatype = "FP64"
    example: ClassVar[Any] = 4.5

    def parse(self, value: Any) -> float | None:
        """Accept numbers and text in decimal notation; see `parse_number`."""
        return parse_number(value)

    def render(self, value: Any) -> str:
        """Return up to six significant digits, without an exponent where possible: 4.5, 1200000."""
        return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"

    def tensor(self, column: pa.Array) -> Array:
        """Convert to float32 [N, 1]; NaN for a missing value."""
        return to_float32(column)

    def describe(self, column: pa.Array) -> dict[str, float]:
        """Add mean, minimum and maximum."""
        ends, mean = pc.min_max(column), pc.mean(column).as_py()
        return {
            **super().describe(column),
            "mean": mean or 0.0,
            "min": ends["min"].as_py() or 0.0,
            "max": ends["max"].as_py() or 0.0,
        }
