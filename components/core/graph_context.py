"""Graph that is being traced in the current context, and the source line of a call."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class GraphBuilder(Protocol):
    """Collector of the nodes of a graph while a workflow function runs."""

    def add(self, component: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Add a call of `component` as a node and return the reference to its output."""
        ...


active_builder: contextvars.ContextVar[GraphBuilder | None] = contextvars.ContextVar("active_builder", default=None)
"""Builder of the workflow that is being traced; None outside a workflow."""


def call_site() -> str:
    """Return file:line of the nearest frame outside this package: the line in the user's workflow."""
    here = str(Path(__file__).parent)
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
