"""Errors of single rows, with the row's number in its split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raypath.components.core.errors import DataError


class RowError(DataError):
    """A row of a batch that cannot be used. row: its position in the batch."""

    def __init__(self, row: int, error: DataError) -> None:
        super().__init__(error.what, fix=error.fix)
        self.row = row

    def __reduce__(self) -> tuple[object, ...]:
        return DataError(self.what, fix=self.fix).__reduce__()


@contextmanager
def numbered(split: str, first: int) -> Iterator[None]:
    """Turn a RowError of a batch into a DataError that names the row. first: number of rows before the batch."""
    try:
        yield
    except RowError as error:
        raise DataError(f"row {first + error.row + 1:,} of {split}: {error.what}", fix=error.fix) from None
