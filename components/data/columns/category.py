"""Category: one of a limited number of values, such as a country or a product line."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.data.columns.kind import ColumnKind
from raypath.components.data.columns.values import class_name


class Category(ColumnKind):
    """A class name, stripped: 3 and 3.0 give "3", true gives "true"."""

    name = "category"
    type = pa.string()
    wanted = "a string, an integer or a boolean"
    request: ClassVar[Any] = str | int | bool
    example: ClassVar[Any] = "tea"

    def parse(self, value: Any) -> str | None:
        """Accept strings, integers and booleans."""
        return class_name(value)

    def render(self, value: Any) -> str:
        """Return the name."""
        return str(value)

    def describe(self, column: pa.Array) -> dict[str, float]:
        """Add the number of distinct values."""
        return {**super().describe(column), "distinct": float(pc.count_distinct(column).as_py())}
