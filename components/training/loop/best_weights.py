"""The best weights so far: in memory, and on disk with the next checkpoint.

They are not written at each look: where epochs are short there are several looks a second.
"""

from __future__ import annotations

from pathlib import Path

import torch

from raypath.components.training.checkpoints import checkpoint as checkpoints
from raypath.components.training.loop.model_setup import PreparedModel
from raypath.components.training.runtime.process_group import ProcessGroup


class BestWeights:
    """Those of one training."""

    def __init__(self, prepared: PreparedModel, group: ProcessGroup) -> None:
        self.prepared, self.group = prepared, group
        self.written = 0
        """The step whose weights are on disk, 0 for none."""
        self._weights: dict[str, torch.Tensor] = {}

    def capture(self) -> None:
        """Take the weights as they are now."""
        self._weights = {name: weight.detach().clone() for name, weight in self.prepared.trained().items()}

    def restore(self) -> None:
        """Give the model the weights that were kept."""
        with torch.no_grad():
            for name, weight in self.prepared.trained().items():
                weight.copy_(self._weights[name])

    def write(self, folder: Path, step: int) -> None:
        """Write the kept weights, which are those after `step`, unless they are there; every process has to call it."""
        if step in (0, self.written):
            return
        weights = checkpoints.gathered(self._weights.items(), self.group.is_rank_zero)
        if self.group.is_rank_zero:
            checkpoints.save(folder, step, checkpoints.Snapshot(weights, {}, []), {})
        self.written = step

    def load(self, path: Path) -> None:
        """Take the weights of a checkpoint, which the model then has too."""
        checkpoints.load_weights(path, self.prepared.model)
        self.capture()
        self.written = int(path.name.rpartition("-")[2])
