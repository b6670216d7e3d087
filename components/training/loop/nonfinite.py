"""Training stops at numbers that are none, before they reach a checkpoint or a choice, and says what is left."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.training.checkpoints import resume as resuming


def step_error(loss: float, norm: float, place: tuple[int, int, Array], scratch: Path | None) -> DataError | None:
    """The error of a step whose loss or gradient is no number, else None. place: epoch, step in it, its rows."""
    if math.isfinite(loss) and math.isfinite(norm):
        return None
    what = "norm of the gradient" if math.isfinite(loss) else "loss"
    epoch, step, rows = place
    return DataError(
        f"the {what} became {norm if math.isfinite(loss) else loss} in epoch {epoch + 1}, step {step + 1}, "
        f"on rows {_named(np.sort(rows))} of train",
        fix=f"lower finetune.lr, or look at these rows; {_kept(scratch)}",
    )


def check_predictions(recorded: Array, step: int, scratch: Path | None) -> None:
    """Raise DataError where what the model makes of the validation rows, float [N, outputs], is no number."""
    bad = np.flatnonzero(~np.isfinite(recorded).all(axis=1))
    if len(bad):
        what = f"after step {step} the model's outputs are no numbers on rows {_named(bad)} of valid"
        raise DataError(what, fix=f"lower finetune.lr, or look at these rows; {_kept(scratch)}")


def check_score(name: str, score: float, step: int, scratch: Path | None) -> None:
    """Raise DataError for a figure by which no weights can be chosen."""
    if not math.isfinite(score):
        what = f"after step {step} the metric {name} is {score} on valid; weights are chosen by it"
        raise DataError(what, fix=f"choose by another with finetune.metric; {_kept(scratch)}")


def _named(rows: Array) -> str:
    return ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")


def _kept(scratch: Path | None) -> str:
    start = resuming.find_resume_point(scratch)
    return f"the last good checkpoint is {start.at}" if start else "there is no checkpoint yet"
