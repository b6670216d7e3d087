"""Progress of a step that streams rows, reported about once a second."""

from __future__ import annotations

import time

from raypath.components.core.context import Context


class ProgressReporter:
    """Count rows and report them to the context. total: expected rows, 0 if unknown."""

    def __init__(self, ctx: Context, total: int = 0) -> None:
        self.ctx, self.total = ctx, total
        self.done = 0
        self._reported = 0.0

    def add(self, rows: int) -> None:
        self.done += rows
        if time.monotonic() - self._reported >= 1.0:
            self._reported = time.monotonic()
            self._report(self.total)

    def finish(self) -> None:
        self._report(self.done)

    def _report(self, total: int) -> None:
        self.ctx.report(self.done, total, f"{self.done:,} rows")
