"""Boolean: true or false, in the notations that spreadsheets and databases write."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.arrays import Array
from raypath.components.data.columns.kind import ColumnKind, to_float32

_WORDS = {"true": True, "yes": True, "y": True, "t": True, "1": True, "1.0": True}
_WORDS |= {"false": False, "no": False, "n": False, "f": False, "0": False, "0.0": False}


class Boolean(ColumnKind):
    """true or false; also yes and no, y and n, t and f, 1 and 0, in any case."""

    name = "boolean"
    type = pa.bool_()
    wanted = "true or false, yes or no, 1 or 0"
    request: ClassVar[Any] = bool
    datatype = "BOOL"
    example: ClassVar[Any] = True

    def parse(self, value: Any) -> bool | None:
        """Accept booleans, the numbers 1 and 0, and their usual notations."""
        return _WORDS.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None

    def render(self, value: Any) -> str:
        """Return yes or no, which language models know as words."""
        return "yes" if value else "no"

    def tensor(self, column: pa.Array) -> Array:
        """Convert to 1, 0, and NaN for a missing value, float32 [N, 1]."""
        return to_float32(column)

    def describe(self, column: pa.Array) -> dict[str, float]:
        """Add the share of true."""
        return {**super().describe(column), "true": float(pc.mean(column.cast(pa.float64())).as_py() or 0.0)}
