"""Steps that were taken, and what is still to be heard of them: their loss, the norm of their gradient.

On a CPU they are looked at before the step reaches the weights. A GPU's are looked at one step later, so that it has
work meanwhile: figures that are no numbers may so have reached the weights of this process, but no checkpoint and no
choice, since all is looked at before those.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypath.components.training.job import Job
from raypath.components.training.loop import nonfinite as finite
from raypath.components.training.runtime.process_group import Group

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Step:
    """One of them. figures, called when they are wanted: the loss, the norms of all ranks, above 0 where to save."""

    number: int
    place: tuple[int, int, Array]
    """Epoch, step in it, row numbers."""
    rate: float
    started: float
    figures: Callable[[], list[float]]


class Taken:
    """The steps that were not looked at yet. steps: of the whole training."""

    def __init__(self, job: Job, group: Group, steps: int) -> None:
        self.job, self.group, self.steps = job, group, steps
        self.late = 0 if group.device.type == "cpu" else 1
        self._waiting: deque[Step] = deque()
        self._looked = 0.0

    def add(self, step: Step) -> bool:
        """As `settle`, but for a step that may wait."""
        self._waiting.append(step)
        return self.settle(self.late)

    def settle(self, left: int = 0) -> bool:
        """Look at all but the last `left`, and tell of them; returns whether one asks for a checkpoint, alike on all
        ranks. Raises what `look` raises."""
        due = False
        while len(self._waiting) > left:
            step = self._waiting.popleft()
            loss, norm, save = self.look(step)
            due |= save
            now = time.perf_counter()
            speed = len(step.place[2]) / (now - max(step.started, self._looked))
            self._looked = now
            if self.group.first:
                said = {"loss": loss, "lr": step.rate, "grad_norm": norm, "rows_per_second": speed}
                self.job.on_step(step.number, self.steps, said)
        return due

    def look(self, step: Step) -> tuple[float, float, bool]:
        """A step's loss, the norm of its gradient, whether to save. Raises DataError where one is no number."""
        loss, norms, save = step.figures()
        norm = norms / self.group.ranks
        if error := finite.no_step(loss, norm, step.place, self.job.scratch):
            raise error
        return loss, norm, save > 0
