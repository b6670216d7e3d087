"""Whether torch.compile pays: tried on the run's own batches when the run is long enough to repay the trial.

On a CPU a compiled MiniLM gained nothing, on other machines and models it may gain a third; so it is measured, once a
run, and what was decided is kept for a run that goes on after a kill.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

TRIAL_SECONDS = 90.0
"""What compiling and trying may cost."""
HOPE = 0.25
"""Share of the time that compiling saves at the best."""
GAIN = 1.05
"""Faster by less than this is no reason to leave the plain model."""

Step = Callable[[torch.nn.Module, Any], None]


def compiled(model: torch.nn.Module, batches: Sequence[Any], steps: int, step: Step) -> torch.nn.Module | None:
    """The compiled model where it is faster on these batches; None where it is not, or cannot be repaid.

    steps: how many the run has before it; step: does a forward and a backward pass.
    """
    half = len(batches) // 2
    plain = _seconds(model, batches, half, step)
    if plain * steps * HOPE < TRIAL_SECONDS:
        return None
    made: Any = torch.compile(model, dynamic=True)
    try:
        fast = _seconds(made, batches, half, step)
    except Exception:  # noqa: BLE001 - no compiler on the machine, or a model it cannot take: the plain one will do
        torch._dynamo.reset()
        return None
    return made if plain / fast >= GAIN and (plain - fast) * steps > 0 else None


def _seconds(model: torch.nn.Module, batches: Sequence[Any], warm: int, step: Step) -> float:
    """Median time of a step after `warm` of them."""
    taken = []
    for number, batch in enumerate(batches):
        began = time.perf_counter()
        step(model, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number >= warm:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)
