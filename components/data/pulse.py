"""How far a step is, told about once a second."""

from __future__ import annotations

import time

from components.core.context import Context


class Pulse:
    """Counts rows and reports them. total: rows to expect, 0 when unknown."""

    def __init__(self, ctx: Context, total: int = 0, note: str = "rows") -> None:
        self.ctx, self.total, self.note = ctx, total, note
        self.done = 0
        self._told = 0.0

    def add(self, rows: int) -> None:
        self.done += rows
        if time.monotonic() - self._told >= 1.0:
            self._told = time.monotonic()
            self.ctx.report(self.done, self.total, self.note)

    def end(self) -> None:
        self.ctx.report(self.done, self.done, self.note)
