"""What is measured while a contender trains: the time between steps, the rows in them, the process's memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.context import NoTracker


class Enough(Exception):
    """All steps that were asked for are timed."""


class Clock:
    """Times `steps` steps after `warmup` of them, then raises Enough; 0 steps are without end.

    A contender calls `step` after each optimizer step and `pause` after what is no part of a step.
    """

    def __init__(self, warmup: int, steps: int, device: str = "cpu") -> None:
        self.warmup, self.steps, self.seen, self.device = warmup, steps, 0, device
        self.seconds = self.cpu = 0.0
        self._lengths: list[Any] = []
        self._last = _now()

    @property
    def rows(self) -> int:
        """Rows of the timed steps."""
        return sum(map(len, self._lengths))

    def step(self, lengths: Any) -> None:
        """A step over rows of these many tokens has ended. lengths: integers [B].

        A GPU is waited for where the time begins and ends, and nowhere between.
        """
        self.seen += 1
        if self.device == "cuda" and self.seen in (self.warmup, self.warmup + self.steps):
            import torch

            torch.cuda.synchronize()
        now = _now()
        if self.seen > self.warmup:
            self.seconds += now[0] - self._last[0]
            self.cpu += now[1] - self._last[1]
            self._lengths.append(lengths)
        if self.steps and self.seen == self.warmup + self.steps:
            raise Enough
        self._last = _now()

    def pause(self) -> None:
        """An evaluation has ended."""
        self._last = _now()

    def figures(self) -> dict[str, float]:
        """What was timed. cpu: seconds of all threads; pairs: sum of squared lengths; padded: tokens with padding."""
        lengths = [np.asarray(each) for each in self._lengths]
        return {
            "steps": self.seen - self.warmup,
            "seconds": self.seconds,
            "cpu": self.cpu,
            "rows": self.rows,
            "tokens": sum(int(each.sum()) for each in lengths),
            "pairs": sum(int((each**2).sum()) for each in lengths),
            "padded": sum(len(each) * int(each.max()) for each in lengths),
        }


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


def device_memory() -> int:
    """The most of a GPU's memory that this process's tensors have held at once, in bytes; 0 without a GPU."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0
