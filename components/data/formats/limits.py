"""Checks of all formats: limits on what a small file may expand to in memory, and valid text."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.types as types

from raypath.components.core.errors import DataError
from raypath.components.data.sources.data_file import DataFile

BATCH_BYTES = 64 << 20
"""Maximum size of one row, and of the rows that a reader yields together."""


def too_long(file: DataFile, row: int) -> DataError:
    """Build the error for a row that exceeds BATCH_BYTES."""
    return DataError(f"{file.name} row {row} is longer than {BATCH_BYTES >> 20} MiB", fix="divide it into shorter rows")


def check_text(file: DataFile, column: Any, row: int) -> None:
    """Raise DataError for the first text of a column that is not UTF-8. row: number of the first row."""
    for chunk in column.chunks:
        if types.is_string(chunk.type) or types.is_large_string(chunk.type):
            try:
                chunk.validate(full=True)
            except pa.ArrowInvalid:
                number = row + next(n for n, text in enumerate(chunk) if not _is_valid(text))
                what = f"{file.name} has text that is not UTF-8 in row {number}"
                raise DataError(what, fix="write the file again from UTF-8 text") from None
        row += len(chunk)


def _is_valid(text: Any) -> bool:
    try:
        text.as_py()
        return True
    except UnicodeDecodeError:
        return False
