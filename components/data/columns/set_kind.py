"""Set: several classes per row, such as the tags of a product."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.data.columns.kind import ColumnKind
from raypath.components.data.labels.sets import SET_TYPE, parse_set

SEPARATOR = "|"


class ClassSet(ColumnKind):
    """Distinct class names: a list, or text such as "tea | green" or '["tea", "green"]'."""

    name = "set"
    type = SET_TYPE
    wanted = "a list of classes"
    request: ClassVar[Any] = list[str]
    example: ClassVar[Any] = ["tea", "green"]

    def parse(self, value: Any) -> list[str] | None:
        """Accept lists of names, and text with a list or separators; see `parse_set`."""
        return parse_set(value, SEPARATOR)

    def render(self, value: Any) -> str:
        """Return the names separated by commas."""
        return ", ".join(value)

    def describe(self, column: pa.Array) -> dict[str, float]:
        """Add the number of distinct classes."""
        distinct = pc.count_distinct(pc.list_flatten(column)).as_py()
        return {**super().describe(column), "distinct": float(distinct)}
