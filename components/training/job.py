"""Input of one training, its progress, and the callback interface of the training loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from raypath.components.tasks.base import Task
from raypath.components.training.batches.token_dataset import TokenRows
from raypath.components.training.differential_privacy.units import Units
from raypath.components.training.params import ResolvedParams

if TYPE_CHECKING:
    import torch

Metrics = dict[str, float]


@dataclass
class Progress:
    """Position of a run; written into every checkpoint."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_metrics: Metrics = field(default_factory=dict)
    best_step: int = 0
    """Step with the best weights; 0 before the first validation pass."""
    worse: int = 0
    """Validation passes since the best one."""
    stopped: bool = False


class TrainingState(Protocol):
    """The part of a running training that callbacks may use."""

    params: ResolvedParams
    steps: int
    progress: Progress
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer

    def validate(self) -> Metrics:
        """Compute the metrics on the validation split with the current weights."""


class TrainingCallback:
    """Hooks into the training loop; override those needed. A hook may raise to end the training."""

    def on_start(self, training: TrainingState) -> None:
        """Run once, after a checkpoint was restored and before the first step."""

    def before_step(self, training: TrainingState) -> None:
        """Run before each optimizer step."""

    def checkpoint_due(self, training: TrainingState) -> bool:
        """Return True to request a checkpoint after the last step; the result has to be the same on every rank."""
        return False

    def before_checkpoint(self, training: TrainingState) -> None:
        """Run before a regular checkpoint is written."""

    def after_checkpoint(self, training: TrainingState) -> None:
        """Run after a regular checkpoint was written."""


@dataclass
class TrainingJob:
    """One training. `on_step(step, steps, metrics)` is called after each step, `on_evaluation(step, metrics)` after
    each validation pass; both on rank 0 only."""

    task: Task
    """Fitted to the training targets."""
    folder: Path
    """The base model."""
    train: TokenRows
    valid: TokenRows
    params: ResolvedParams
    seed: int
    threads: int
    scratch: Path | None = None
    """Folder of checkpoints; None disables them."""
    on_step: Callable[[int, int, Metrics], None] = lambda step, steps, metrics: None
    on_evaluation: Callable[[int, Metrics], None] = lambda step, metrics: None
    on_profile: Callable[[Path], None] = lambda path: None
    """Receives each file that the profiler writes."""
    units: Units | None = None
    """Rows, or groups of rows, that a private training protects; None for its rows."""
    callback: TrainingCallback = field(default_factory=TrainingCallback)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("raypath"))
    concurrent_trials: int = 1
    """Trainings that share the memory of the machine or GPU, including this one."""
