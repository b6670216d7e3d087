"""Memory check before a model is loaded."""

from __future__ import annotations

from raypath.components.core.errors import DataError
from raypath.components.models.process import free_memory

LOAD_FACTOR = 1.3
"""Peak memory while a model is opened, relative to the size of its files."""


def check_memory(size: int) -> None:
    """Raise InsufficientMemory if a model of this many bytes does not fit in the free memory."""
    free = free_memory()
    if size * LOAD_FACTOR > free:
        reason = f"it needs {size * LOAD_FACTOR / 2**20:,.0f} MiB of memory and {free / 2**20:,.0f} MiB are free"
        raise InsufficientMemory(reason, fix="serve it on a machine with more memory")


class InsufficientMemory(DataError):
    """A model does not fit in the free memory."""
