"""One training as it is sent to its workers, and its files for workers on nodes that do not have them.

Nodes that share only object storage have folders of their own. The worker with rank 0 runs on the step's node: it alone
writes checkpoints and the model. The others fetch what they read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from raypath.components.core.context import Context
from raypath.components.models.metadata import ModelMetadata
from raypath.components.training.batches.stored_folder import ALL_FILES, MODEL_FILES, StoredFolder
from raypath.components.training.params import ResolvedParams


@dataclass(frozen=True)
class TrainingRequest:
    """One training."""

    context: Context
    """Without tracker: a worker attaches its own."""
    folder: Path
    """The base model."""
    train: str
    valid: str
    labels: int
    metadata: ModelMetadata
    params: ResolvedParams
    trained_weights: Path | None
    """Weights that `tune` kept of the same training, used instead of training."""
    seconds: float = 0.0
    """Estimated time of the training in seconds; 0 for none."""
    stored: Mapping[str, StoredFolder] = field(default_factory=dict)
    """Folders for workers on other nodes; none where the workers stay on the step's node, or all nodes share it."""

    @property
    def node(self) -> str:
        """Ray's id of the node that the workers are restricted to; "" for any."""
        return "" if self.stored else self.context.node

    def with_stored_files(self) -> TrainingRequest:
        """Upload what workers on other nodes read, if nodes share only object storage.

        Adapters stay on the step's node with all workers: they name a base that is in a folder of that node.
        """
        from raypath.components.models.adapters import is_adapter

        storage = self.context.part_storage
        if storage is None or is_adapter(self.folder):
            return self
        scratch = self.context.scratch
        kept = [("weights", self.trained_weights, ALL_FILES)] if self.trained_weights is not None else []
        folders = [
            ("base", self.folder, MODEL_FILES),
            ("train", Path(self.train), ALL_FILES),
            ("valid", Path(self.valid), ALL_FILES),
            ("scratch", scratch, ("*.json", *_checkpoints(scratch))),
            *kept,
        ]
        stored = {
            name: StoredFolder.of(folder, storage, scratch / ".staging" / name, patterns)
            for name, folder, patterns in folders
        }
        return replace(self, stored=stored)

    @contextlib.contextmanager
    def on_node(self, node: str) -> Iterator[TrainingRequest]:
        """Yield the training with folders that a process can read: on another node than the step's, fetched ones.

        node: Ray's id of the node of this process. Raises StoreError for a file that is missing or corrupt.
        """
        if not self.stored or node == self.context.node:
            yield self
            return
        with contextlib.ExitStack() as stack:
            found = {name: stack.enter_context(folder.fetch()) for name, folder in self.stored.items()}
            context = replace(self.context, scratch=found["scratch"], out=found["scratch"] / "out")
            yield replace(
                self,
                context=context,
                folder=found["base"],
                train=str(found["train"]),
                valid=str(found["valid"]),
                trained_weights=found.get("weights"),
            )


def _checkpoints(scratch: Path) -> tuple[str, ...]:
    """Patterns of the checkpoint to resume from, and of its best weights."""
    from raypath.components.training.checkpoints.resume import find_resume_point

    start = find_resume_point(scratch)
    if start is None:
        return ()
    return tuple(f"{path.relative_to(scratch)}/*" for path in (start.at, start.best) if path is not None)
