"""A kind of column of one's own, as a later capability adds one."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypath.components.data.columns.kind import ColumnKind


class Colour(ColumnKind):
    """A colour as #rrggbb."""

    name = "colour"
    type = pa.list_(pa.uint8(), 3)
    wanted = "a colour such as #ff0000"
    request: ClassVar[Any] = str
    example: ClassVar[Any] = "#ff0000"

    def parse(self, value: Any) -> list[int] | None:
        try:
            return list(bytes.fromhex(value[1:])) if value[0] == "#" and len(value) == 7 else None
        except (TypeError, ValueError):
            return None

    def render(self, value: Any) -> str:
        return "red" if value == [255, 0, 0] else "another colour"

    def tensor(self, column: pa.Array) -> Any:
        return np.asarray(column.flatten().to_numpy(), np.float32).reshape(-1, 3) / 255
