"""Best weights so far: in memory, and on disk with the next checkpoint.

They are not written after each validation pass: with short epochs there are several passes a second.
"""

from __future__ import annotations

from pathlib import Path

import torch

from raypath.components.training.checkpoints import checkpoint
from raypath.components.training.loop.model_setup import PreparedModel
from raypath.components.training.runtime.process_group import ProcessGroup


class BestWeights:
    """Best weights of one training."""

    def __init__(self, prepared: PreparedModel, group: ProcessGroup) -> None:
        self.prepared, self.group = prepared, group
        self.written = 0
        """Step of the weights on disk, 0 for none."""
        self._weights: dict[str, torch.Tensor] = {}

    def capture(self) -> None:
        """Copy the current weights."""
        self._weights = {name: weight.detach().clone() for name, weight in self.prepared.trained().items()}

    def restore(self) -> None:
        """Restore the captured weights into the model."""
        with torch.no_grad():
            for name, weight in self.prepared.trained().items():
                weight.copy_(self._weights[name])

    def write(self, folder: Path, step: int) -> None:
        """Write the captured weights, those after `step`, unless they are on disk; every process has to call it."""
        if step in (0, self.written):
            return
        weights = checkpoint.gathered(self._weights.items(), self.group.is_rank_zero)
        if self.group.is_rank_zero:
            checkpoint.save(folder, step, checkpoint.Snapshot(weights, {}, []), {})
        self.written = step

    def load(self, path: Path) -> None:
        """Load the weights of a checkpoint into the model and capture them."""
        checkpoint.load_weights(path, self.prepared.model)
        self.capture()
        self.written = int(path.name.rpartition("-")[2])
