"""Stop training when the loss, the gradient norm or a prediction is NaN or infinite, before a checkpoint is written or
best weights are selected."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.training.checkpoints import resume


def step_error(loss: float, norm: float, place: tuple[int, int, Array], scratch: Path | None) -> DataError | None:
    """Return an error for a step with a non-finite loss or gradient norm, else None. place: epoch, step, row
    numbers."""
    if math.isfinite(loss) and math.isfinite(norm):
        return None
    what = "gradient norm" if math.isfinite(loss) else "loss"
    epoch, step, rows = place
    return DataError(
        f"{what} is {_shown(norm if math.isfinite(loss) else loss)} at epoch {epoch + 1}, step {step + 1} "
        f"(training rows {_named(np.sort(rows))})",
        fix=f"lower finetune.lr or inspect these rows; {_kept(scratch)}",
    )


def check_predictions(recorded: Array, step: int, scratch: Path | None) -> None:
    """Raise DataError for NaN or infinite outputs on the validation rows, float [N, outputs]."""
    bad = np.flatnonzero(~np.isfinite(recorded).all(axis=1))
    if len(bad):
        what = f"outputs are NaN or infinite after step {step} (validation rows {_named(bad)})"
        raise DataError(what, fix=f"lower finetune.lr or inspect these rows; {_kept(scratch)}")


def check_score(name: str, score: float, step: int, scratch: Path | None) -> None:
    """Raise DataError for a non-finite metric that weights are selected by."""
    if not math.isfinite(score):
        what = f"metric {name} is {_shown(score)} after step {step}; the best weights are selected by it"
        raise DataError(what, fix=f"set another finetune.metric; {_kept(scratch)}")


def _shown(number: float) -> str:
    return "NaN" if math.isnan(number) else "infinite"


def _named(rows: Array) -> str:
    return ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")


def _kept(scratch: Path | None) -> str:
    start = resume.find_resume_point(scratch)
    return f"the last good checkpoint is {start.at}" if start else "there is no checkpoint yet"
