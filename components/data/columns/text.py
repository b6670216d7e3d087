"""Text: any valid Unicode string, stored as it is."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.data.columns.kind import ColumnKind
from raypath.components.data.columns.values import is_valid_unicode


class Text(ColumnKind):
    """A text to read. Numbers are rejected: a column of numbers named as a text is probably the wrong column."""

    name = "text"
    type = pa.string()
    wanted = "text"
    request: ClassVar[Any] = str
    example: ClassVar[Any] = "A lovely cup of tea"

    def parse(self, value: Any) -> str | None:
        """Accept valid strings."""
        return value if isinstance(value, str) and is_valid_unicode(value) else None

    def render(self, value: Any) -> str:
        """Return the text."""
        return str(value)

    def describe(self, column: pa.Array) -> dict[str, float]:
        """Add the mean and the maximum length in characters."""
        lengths = pc.utf8_length(column)
        longest, mean = pc.max(lengths).as_py() or 0, pc.mean(lengths).as_py() or 0.0
        return {**super().describe(column), "mean_characters": float(mean), "max_characters": float(longest)}
