"""Interface of a kind of column: the values that it accepts, how they are stored, encoded and sent in a request.

A kind is one file in this folder and a line in catalog.py. Readers pass values as their format has them: str from CSV,
also int, float, bool, dict and list from JSON, and what Arrow's `to_pylist` returns from Parquet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array


def to_float32(column: pa.Array) -> Array:
    """Convert a column of numbers or booleans to float32 [N, 1]; NaN for a missing value."""
    return np.asarray(column.cast(pa.float32()).to_numpy(zero_copy_only=False)[:, None])


class ColumnKind(ABC):
    """Base class of kinds; kinds have no state."""

    name: ClassVar[str]
    type: ClassVar[pa.DataType]
    """Arrow type of the column in a Dataset."""
    wanted: ClassVar[str]
    """A valid value, as messages describe it."""
    request: ClassVar[Any]
    """Type of a value in a request, for pydantic and OpenAPI."""
    datatype: ClassVar[str] = "BYTES"
    """Type of a tensor of such values in the Open Inference Protocol."""
    example: ClassVar[Any]
    """Made-up value for smoke tests and documentation, of the type `request`."""

    @abstractmethod
    def parse(self, value: Any) -> Any:
        """Convert a value of any format to what `type` stores; None if it is not of this kind."""

    def problem(self, value: Any) -> str:
        """Describe an invalid value without quoting it, to follow the name of its column."""
        return f"is not {self.wanted}"

    def is_missing(self, value: Any) -> bool:
        """Return True for null, NaN and blank text."""
        return value is None or value != value or (isinstance(value, str) and not value.strip())

    def column(self, values: Sequence[Any]) -> tuple[pa.Array, Array]:
        """Convert values of any format, [N], to a column and a mask, bool [N], of invalid ones.

        Missing and invalid values are null.
        """
        parsed = [None if self.is_missing(value) else self.parse(value) for value in values]
        invalid = [found is None and not self.is_missing(value) for value, found in zip(values, parsed, strict=True)]
        return pa.array(parsed, self.type), np.array(invalid, bool)

    @abstractmethod
    def render(self, value: Any) -> str:
        """Format a stored value as text, for encoders of text. The value is not null."""

    def tensor(self, column: pa.Array) -> Array:
        """Convert a stored column, [N], to a float32 array [N, ...], for encoders that take one per column.

        Raises TypeError for a kind without such a form.
        """
        raise TypeError(f"{self.name} has no form as a tensor")

    def describe(self, column: pa.Array) -> dict[str, float]:
        """Compute statistics of a stored column by name."""
        return {"rows": float(len(column)), "missing": float(column.null_count)}
