"""Sequence of steps that are planned when they are read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, overload

from raypath.components.core.arrays import Array


class StepPlan(Sequence[Array]):
    """Steps of an epoch, the row numbers of each, int64. Read by number from 0, or by slice; no negative numbers."""

    @abstractmethod
    def _rows(self, step: int) -> Array:
        """Return the rows of a step that exists."""

    @overload
    def __getitem__(self, step: int) -> Array: ...
    @overload
    def __getitem__(self, step: slice) -> list[Array]: ...
    def __getitem__(self, step: int | slice) -> Any:
        if isinstance(step, slice):
            return [self[n] for n in range(*step.indices(len(self)))]
        if not 0 <= step < len(self):
            raise IndexError(step)
        return self._rows(step)
