"""Limits on what a small file may expand to in memory."""

from __future__ import annotations

from raypath.components.core.errors import DataError
from raypath.components.data.sources.files import DataFile

BATCH_BYTES = 64 << 20
"""Maximum size of one row, and of the rows that a reader yields together."""


def too_long(file: DataFile, row: int) -> DataError:
    """Build the error for a row that exceeds BATCH_BYTES."""
    return DataError(f"{file.name} row {row} is longer than {BATCH_BYTES >> 20} MiB", fix="divide it into shorter rows")
