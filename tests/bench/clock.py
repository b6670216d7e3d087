"""What is measured while a contender trains: the time between steps, the rows in them, the process's memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from components.core.context import NoTracker


class Enough(Exception):
    """All steps that were asked for are timed."""


class Clock:
    """Times `steps` steps after `warmup` of them, then raises Enough; 0 steps are without end.

    A contender calls `step` after each optimizer step and `pause` after what is no part of a step.
    """

    def __init__(self, warmup: int, steps: int) -> None:
        self.warmup, self.steps, self.seen = warmup, steps, 0
        self.seconds = self.cpu = 0.0
        self.rows = self.tokens = self.pairs = self.padded = 0
        self._last = _now()

    def step(self, lengths: Any) -> None:
        """A step over rows of these many tokens has ended. lengths: integers [B]."""
        now = _now()
        self.seen += 1
        if self.seen > self.warmup:
            self.seconds += now[0] - self._last[0]
            self.cpu += now[1] - self._last[1]
            self.rows += len(lengths)
            self.tokens += int(lengths.sum())
            self.pairs += int((lengths**2).sum())
            self.padded += len(lengths) * int(lengths.max())
        if self.steps and self.seen == self.warmup + self.steps:
            raise Enough
        self._last = _now()

    def pause(self) -> None:
        """An evaluation has ended."""
        self._last = _now()

    def figures(self) -> dict[str, float]:
        """What was timed. cpu: seconds of all threads; pairs: sum of squared lengths; padded: tokens with padding."""
        names = ("seconds", "cpu", "rows", "tokens", "pairs", "padded")
        return {"steps": self.seen - self.warmup, **{name: getattr(self, name) for name in names}}


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class Stamps(NoTracker):
    """A step's tracker that tells the clock of training steps and evaluations as `finetune` notes them."""

    def __init__(self, clock: Clock, lengths: list[Any]) -> None:
        self.clock, self.lengths = clock, lengths

    def metrics(self, values: Any, step: int = 0) -> None:
        if "train/loss" in values:
            self.clock.step(self.lengths[step - 1])
        else:
            self.clock.pause()


def peak_memory() -> int:
    """The most memory that this process has held at once, in bytes.

    VmHWM and not getrusage's ru_maxrss, which begins with what the parent held.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
