"""Resume an interrupted run: choose the checkpoint, and restore the settings that determine its exact weights."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from raypath.components.models.bf16 import uses_bf16
from raypath.components.training.checkpoints import checkpoint
from raypath.components.training.job import TrainingJob
from raypath.components.training.runtime.process_group import ProcessGroup


@dataclass(frozen=True)
class ResumePoint:
    """Checkpoint to resume from, and that of the best weights up to it; `best` is None before the first validation
    pass."""

    at: Path
    best: Path | None
    state: checkpoint.State


@dataclass(frozen=True)
class ExecutionSettings:
    """Facts besides settings, rows and seed that determine the exact weights; written into every checkpoint."""

    threads: int
    precision: str
    device: str
    world_size: int


def find_resume_point(scratch: Path | None) -> ResumePoint | None:
    """Return the newest intact checkpoint, regular or of best weights, whose best weights are intact too.

    Older best weights would not match the metrics in the checkpoint's state. Best weights written without an optimizer
    cannot be resumed from.
    """
    for at in reversed(_all(scratch)):
        if checkpoint.is_intact(at):
            state = checkpoint.state_of(at)
            if "execution" not in state:
                continue
            best = at.parents[1] / "best" / checkpoint.name_of(state["best_step"]) if state.get("best_step") else None
            if best in (None, at) or checkpoint.is_intact(best):
                return ResumePoint(at, best, state)
    return None


def drop_newer(scratch: Path | None, start: ResumePoint | None, log: logging.Logger) -> None:
    """Remove checkpoints newer than the resume point; log a warning if one, or its best weights, is corrupt."""
    newer = [path for path in _all(scratch) if start is None or path.name > start.at.name]
    # Best weights are written just before the checkpoint that refers to them; a crash in between leaves them alone.
    damaged = [path for path in newer if not checkpoint.is_intact(path) or "execution" in checkpoint.state_of(path)]
    for path in newer:
        shutil.rmtree(path, ignore_errors=True)
    if damaged:
        where = f"step {int(start.at.name.rpartition('-')[2])}" if start else "the start"
        log.warning("a checkpoint, or its best weights, is corrupt: training resumes from %s", where)


def resolve_execution(start: ResumePoint | None, job: TrainingJob, group: ProcessGroup) -> ExecutionSettings:
    """Return the settings of the checkpoint if they apply here; else log that the exact weights will differ."""
    precision = "bf16" if uses_bf16(job.params.precision) else "fp32"
    mine = ExecutionSettings(job.threads, precision, group.device.type, group.world_size)
    if start is None:
        return mine
    made = ExecutionSettings(**start.state["execution"])
    if (made.device, made.world_size) == (mine.device, mine.world_size):
        return made
    if group.is_rank_zero:
        job.log.warning(
            "a checkpoint of %d worker(s) on %s resumes with %d on %s: weights will differ from an uninterrupted run's",
            *(made.world_size, made.device, mine.world_size, mine.device),
        )
    return replace(mine, precision=made.precision) if made.device == mine.device else mine


def _all(scratch: Path | None) -> list[Path]:
    """List all checkpoints, oldest first; of two of the same step the regular one comes last."""
    if scratch is None:
        return []
    found = [path for name in ("best", "last") for path in checkpoint.every(scratch / name)]
    return sorted(found, key=lambda path: path.name)
