"""Check each step's loss and gradient norm: on CPU before the optimizer step, on GPU one step later, so that the host
never waits for the device.

On a GPU, non-finite values may therefore reach the weights of this process, but no checkpoint and no selection of best
weights: all pending steps are checked before those.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from raypath.components.core.arrays import Array
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop import nonfinite
from raypath.components.training.runtime.process_group import ProcessGroup


@dataclass(frozen=True)
class StepResult:
    """One optimizer step. values: returns the loss, the sum of gradient norms over ranks, and > 0 if a checkpoint is
    due."""

    number: int
    place: tuple[int, int, Array]
    """Epoch, step in the epoch, row numbers."""
    rate: float
    started: float
    values: Callable[[], list[float]]


class StepMonitor:
    """Steps not yet checked. steps: number of steps of the training."""

    def __init__(self, job: TrainingJob, group: ProcessGroup, steps: int) -> None:
        self.job, self.group, self.steps = job, group, steps
        self.delay = 0 if group.device.type == "cpu" else 1
        self._pending: deque[StepResult] = deque()
        self._last_checked = 0.0

    def add(self, step: StepResult) -> bool:
        """Add a step, and flush all but those that may wait."""
        self._pending.append(step)
        return self.flush(self.delay)

    def flush(self, left: int = 0) -> bool:
        """Check and report all but the last `left` steps. Return True if one requests a checkpoint, the same on all
        ranks. Raises DataError."""
        due = False
        while len(self._pending) > left:
            step = self._pending.popleft()
            loss, norm, save = self.check(step)
            due |= save
            now = time.perf_counter()
            speed = len(step.place[2]) / (now - max(step.started, self._last_checked))
            self._last_checked = now
            if self.group.is_rank_zero:
                said = {"loss": loss, "lr": step.rate, "grad_norm": norm, "rows_per_second": speed}
                self.job.on_step(step.number, self.steps, said)
        return due

    def check(self, step: StepResult) -> tuple[float, float, bool]:
        """Return a step's loss, gradient norm, and whether to save. Raises DataError for a non-finite value."""
        loss, norms, save = step.values()
        norm = norms / self.group.world_size
        if error := nonfinite.step_error(loss, norm, step.place, self.job.scratch):
            raise error
        return loss, norm, save > 0
