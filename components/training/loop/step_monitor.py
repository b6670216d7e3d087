"""Steps that were taken, and what is still to be heard of them: their loss, the norm of their gradient.

On a CPU they are looked at before the step reaches the weights. A GPU's are looked at one step later, so that it has
work meanwhile: values that are no numbers may so have reached the weights of this process, but no checkpoint and no
choice, since all is looked at before those.
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
    """One of them. values, called when they are wanted: the loss, the norms of all ranks, above 0 where to save."""

    number: int
    place: tuple[int, int, Array]
    """Epoch, step in it, row numbers."""
    rate: float
    started: float
    values: Callable[[], list[float]]


class StepMonitor:
    """The steps that were not looked at yet. steps: of the whole training."""

    def __init__(self, job: TrainingJob, group: ProcessGroup, steps: int) -> None:
        self.job, self.group, self.steps = job, group, steps
        self.delay = 0 if group.device.type == "cpu" else 1
        self._pending: deque[StepResult] = deque()
        self._last_checked = 0.0

    def add(self, step: StepResult) -> bool:
        """As `settle`, but for a step that may wait."""
        self._pending.append(step)
        return self.flush(self.delay)

    def flush(self, left: int = 0) -> bool:
        """Look at all but the last `left`, and tell of them; returns whether one asks for a checkpoint, alike on all
        ranks. Raises what `look` raises."""
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
        """A step's loss, the norm of its gradient, whether to save. Raises DataError where one is no number."""
        loss, norms, save = step.values()
        norm = norms / self.group.world_size
        if error := nonfinite.step_error(loss, norm, step.place, self.job.scratch):
            raise error
        return loss, norm, save > 0
