"""How far a step is, told about once a second."""

from __future__ import annotations

import time

from raypath.components.core.context import Context


class ProgressReporter:
    """Counts rows and reports them. total: rows to expect, 0 when unknown."""

    def __init__(self, ctx: Context, total: int = 0) -> None:
        self.ctx, self.total = ctx, total
        self.done = 0
        self._told = 0.0

    def add(self, rows: int) -> None:
        self.done += rows
        if time.monotonic() - self._told >= 1.0:
            self._told = time.monotonic()
            self._tell(self.total)

    def end(self) -> None:
        self._tell(self.done)

    def _tell(self, total: int) -> None:
        self.ctx.report(self.done, total, f"{self.done:,} rows")
