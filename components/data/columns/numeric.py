"""Numbers to predict: what one value of a column means, whatever the format, and several columns as one."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

VECTOR = pa.list_(pa.float64())
LARGEST = 3.4028234e38
"""Training takes 32-bit numbers, so what is larger would be infinite there."""
# Not what float() takes: "nan", "inf" and "1_000" are no numbers here.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def to_numbers(values: Iterable[Any]) -> pa.Array:
    """A float64 for each value; null where it is missing or no number, see `parse_number`."""
    return pa.array([parse_number(value) for value in values], pa.float64())


def parse_number(value: Any) -> float | None:
    """3, 3.5 and " 3e5 " as float; None for words, booleans, NaN and what does not fit into 32 bits."""
    if isinstance(value, str):
        cell = value.strip()
        found = float(cell) if _NUMBER.fullmatch(cell) else math.nan
    elif isinstance(value, numbers.Real | Decimal) and not isinstance(value, bool):
        found = _as_float(value)
    else:
        return None
    return found if abs(found) <= LARGEST else None


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):
        return math.nan


def packed(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The float columns `names` as one column `label` of lists; a null becomes NaN."""
    if not names:
        return table
    values = np.column_stack([table[name].to_numpy() for name in names])  # float64 [N, T]
    offsets = pa.array(np.arange(0, values.size + 1, len(names), dtype=np.int32))
    lists = pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), pa.float64()))
    return table.drop_columns(list(names)).append_column("label", lists)
