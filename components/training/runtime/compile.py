"""Use torch.compile if it is faster, measured on the run's own batches when the run is long enough to repay the trial.

A compiled MiniLM-L6 was 4 to 9% faster on a CPU after 85 seconds of compiling; other machines and models gain more, or
nothing. The decision is stored, so that a resumed run does not repeat the trial.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from raypath.components.core.files import user_cache, write_atomically

TRIAL_SECONDS = 90.0
"""Expected cost of compiling and measuring."""
EXPECTED_SAVING = 0.15
"""Share of the step time that compiling can be expected to save."""
MIN_SPEEDUP = 1.05
"""Minimum speedup for which the compiled model is used."""
WARMUP_STEPS = 8
"""Step after which compiling is considered, and the number of batches measured."""
DECISION = "compile.json"
BACKEND = "inductor"
_CACHE = "TORCHINDUCTOR_CACHE_DIR"

Step = Callable[[Any, Any], None]


@dataclass(frozen=True)
class Decision:
    """Decision for the steps after `step`, also when the run resumes."""

    compiled: bool
    step: int


def worth_trying(step_seconds: float, steps: int) -> bool:
    """Return True if `steps` steps of that duration could repay the trial."""
    return step_seconds * steps * EXPECTED_SAVING > TRIAL_SECONDS


def compile_if_faster(model: torch.nn.Module, batches: Sequence[Any], step: Step) -> Any:
    """Return the compiled model if it is faster on these batches, else None. step: runs a forward and a backward
    pass."""
    plain = _seconds(model, batches, step)
    try:
        made = compile_model(model)
        fast = _seconds(made, batches, step)
    except Exception:  # noqa: BLE001 - no compiler on the machine, or an unsupported model: use eager mode
        return None
    return made if plain / fast >= MIN_SPEEDUP else None


def compile_model(model: Any) -> Any:
    """Wrap the model with torch.compile for batches of any shape; it compiles at the first call."""
    _use_private_cache()
    return torch.compile(model, dynamic=True, backend=BACKEND)


def _use_private_cache() -> None:
    """Keep compiled code in this user's cache. Raises PlatformError.

    PyTorch loads libraries and pickles from torchinductor_USER in the folder for temporary files, also from one that
    another user of the machine made there before. It sets the variable to it when parts of it are imported.
    """
    given = Path(os.environ.get(_CACHE, ""))
    chosen = given.name and (given.parent, given.name[:14]) != (Path(tempfile.gettempdir()), "torchinductor_")
    if not chosen:
        os.environ[_CACHE] = str(user_cache("compiled"))


def load_decision(scratch: Path | None) -> Decision | None:
    """Read the stored decision; None before it was made."""
    path = scratch / DECISION if scratch is not None else None
    return Decision(**json.loads(path.read_text(encoding="utf-8"))) if path is not None and path.exists() else None


def save_decision(scratch: Path | None, decision: Decision) -> Decision:
    """Store a decision."""
    if scratch is not None:
        write_atomically(scratch / DECISION, json.dumps(asdict(decision)))
    return decision


def _seconds(model: Any, batches: Sequence[Any], step: Step) -> float:
    """Measure the median step time, after each batch has run once so that nothing is left to compile."""
    taken = []
    for batch in [*batches, *batches]:
        began = time.perf_counter()
        step(model, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[len(batches) :])
