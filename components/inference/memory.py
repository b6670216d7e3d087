"""Memory check before a model is loaded: its size against the memory that is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raypath.components.core.errors import DataError
from raypath.components.core.resources import free_memory

if TYPE_CHECKING:
    pass


LOAD_FACTOR = 1.3
"""Memory that a version takes while it is opened, in sizes of its files."""


def check_memory(size: int) -> None:
    """Raise InsufficientMemory where a model of this many bytes would take the memory that the others answer with."""
    free = free_memory()
    if size * LOAD_FACTOR > free:
        told = f"it needs {size * LOAD_FACTOR / 2**20:,.0f} MiB of memory and {free / 2**20:,.0f} MiB are free"
        raise InsufficientMemory(told, fix="serve it on a larger machine")


class InsufficientMemory(DataError):
    """A model would take the memory that the others answer with."""
