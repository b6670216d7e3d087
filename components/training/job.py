"""What a training is given, and where it stands."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from raypath.components.tasks.base import Task
from raypath.components.training.batches.token_dataset import TokenDataset
from raypath.components.training.params import FinetuneParams

Metrics = dict[str, float]


@dataclass
class Progress:
    """Where a run stands; written into every checkpoint."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_metrics: Metrics = field(default_factory=dict)
    best_step: int = 0
    """The step after which the weights were best; 0 before the first look."""
    worse: int = 0
    """Evaluations since the best one."""
    stopped: bool = False


@dataclass
class TrainingJob:
    """One training. `on_step(step, steps, metrics)` after each step, `on_evaluation(step, metrics)` after each look
    at the validation part; both on rank 0 only."""

    task: Task
    """Fitted to the training targets."""
    folder: Path
    """The base model."""
    train: TokenDataset
    valid: TokenDataset
    params: FinetuneParams
    seed: int
    threads: int
    scratch: Path | None = None
    """Where checkpoints go; None keeps none."""
    on_step: Callable[[int, int, Metrics], None] = lambda step, steps, metrics: None
    on_evaluation: Callable[[int, Metrics], None] = lambda step, metrics: None
    on_profile: Callable[[Path], None] = lambda path: None
    """Given each file that the profiler writes."""
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("raypath"))
    concurrent_trials: int = 1
    """Trainings that share the machine's memory, or a GPU's, this one counted."""
