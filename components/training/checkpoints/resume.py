"""Where a run that was cut short goes on, and in what it holds to the run before."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from raypath.components.models.bf16 import uses_bf16
from raypath.components.training.checkpoints import checkpoint as checkpoints
from raypath.components.training.job import TrainingJob
from raypath.components.training.runtime.process_group import ProcessGroup


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to go on from, and that of the best weights until then; `best` is None before the first look."""

    at: Path
    best: Path | None
    state: checkpoints.State


@dataclass(frozen=True)
class ExecutionSettings:
    """What the bits of the weights depend on beside settings, rows and seed; written into every checkpoint."""

    threads: int
    precision: str
    device: str
    world_size: int


def find_resume_point(scratch: Path | None) -> ResumePoint | None:
    """The newest whole checkpoint, be it a regular one or one of best weights, whose best weights are whole too.

    Weights that were best before would not be those that its figures tell of. Best weights that were written without
    the optimizer are no start.
    """
    for at in reversed(_all(scratch)):
        if checkpoints.is_intact(at):
            state = checkpoints.state_of(at)
            if "execution" not in state:
                continue
            best = at.parents[1] / "best" / checkpoints.name_of(state["best_step"]) if state.get("best_step") else None
            if best in (None, at) or checkpoints.is_intact(best):
                return ResumePoint(at, best, state)
    return None


def drop_newer(scratch: Path | None, start: ResumePoint | None, log: logging.Logger) -> None:
    """Remove checkpoints that are newer than the start; say so where they are damaged, or their best weights are."""
    newer = [path for path in _all(scratch) if start is None or path.name > start.at.name]
    # Best weights alone are written just before the checkpoint that refers to them, which a kill can prevent.
    damaged = [path for path in newer if not checkpoints.is_intact(path) or "execution" in checkpoints.state_of(path)]
    for path in newer:
        shutil.rmtree(path, ignore_errors=True)
    if damaged:
        where = f"step {int(start.at.name.rpartition('-')[2])}" if start else "the start"
        log.warning("a checkpoint, or the best weights that belong to it, is damaged: training goes on from %s", where)


def resolve_execution(start: ResumePoint | None, job: TrainingJob, group: ProcessGroup) -> ExecutionSettings:
    """How training goes on: as the checkpoint was made, where it can be; else says that the bits will be others."""
    precision = "bf16" if uses_bf16(job.params.precision) else "fp32"
    mine = ExecutionSettings(job.threads, precision, group.device.type, group.world_size)
    if start is None:
        return mine
    made = ExecutionSettings(**start.state["execution"])
    if (made.device, made.world_size) == (mine.device, mine.world_size):
        return made
    if group.is_rank_zero:
        job.log.warning(
            "a checkpoint of %d worker(s) on %s goes on with %d on %s: the rest is not bit for bit that of a whole run",
            *(made.world_size, made.device, mine.world_size, mine.device),
        )
    return replace(mine, precision=made.precision) if made.device == mine.device else mine


def _all(scratch: Path | None) -> list[Path]:
    """Every checkpoint, the newest last; of two of the same step the regular one comes after that of best weights."""
    if scratch is None:
        return []
    found = [path for name in ("best", "last") for path in checkpoints.every(scratch / name)]
    return sorted(found, key=lambda path: path.name)
