"""Whether torch.compile pays: tried on the run's own batches when the run is long enough to repay the trial.

A compiled MiniLM-L6 was 4 to 9% faster on a CPU after 85 seconds of compiling; other machines and models gain more, or
nothing. So it is measured once a run, and what was decided is kept for a run that goes on after a kill.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from raypath.components.core.files import write_atomically

TRIAL_SECONDS = 90.0
"""What compiling and trying may cost."""
EXPECTED_SAVING = 0.15
"""Share of the time that compiling can be hoped to save."""
MIN_SPEEDUP = 1.05
"""Faster by less than this is no reason to leave the plain model."""
WARMUP_STEPS = 8
"""The step of the run after which it is considered, and how many batches are tried."""
DECISION = "compile.json"
BACKEND = "inductor"

Step = Callable[[Any, Any], None]


@dataclass(frozen=True)
class Decision:
    """Whether the steps after `step` of the run are compiled, also where it goes on after a kill."""

    compiled: bool
    step: int


def worth_trying(step_seconds: float, steps: int) -> bool:
    """Whether `steps` steps of that length could repay the trial."""
    return step_seconds * steps * EXPECTED_SAVING > TRIAL_SECONDS


def compile_if_faster(model: torch.nn.Module, batches: Sequence[Any], step: Step) -> Any:
    """The compiled model where it is faster on these batches, else None. step: a forward and a backward pass."""
    plain = _seconds(model, batches, step)
    made = compile_model(model)
    try:
        fast = _seconds(made, batches, step)
    except Exception:  # noqa: BLE001 - no compiler on the machine, or a model it cannot take: the plain one will do
        return None
    return made if plain / fast >= MIN_SPEEDUP else None


def compile_model(model: Any) -> Any:
    """The model as torch.compile makes it, for batches of any shape; compiled when it is first called."""
    return torch.compile(model, dynamic=True, backend=BACKEND)


def load_decision(scratch: Path | None) -> Decision | None:
    """What an earlier attempt at this run decided, None for nothing yet."""
    path = scratch / DECISION if scratch is not None else None
    return Decision(**json.loads(path.read_text(encoding="utf-8"))) if path is not None and path.exists() else None


def save_decision(scratch: Path | None, decision: Decision) -> Decision:
    """Keep a decision."""
    if scratch is not None:
        write_atomically(scratch / DECISION, json.dumps(asdict(decision)))
    return decision


def _seconds(model: Any, batches: Sequence[Any], step: Step) -> float:
    """Median time of a step once each batch has been through, so that nothing is compiled any more."""
    taken = []
    for batch in [*batches, *batches]:
        began = time.perf_counter()
        step(model, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[len(batches) :])
