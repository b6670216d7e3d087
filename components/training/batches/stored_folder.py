"""Folder in object storage, for processes on nodes that do not have it: a base model, a small dataset, a checkpoint."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raypath.components.core.context import ShardStorage
from raypath.components.core.files import link
from raypath.components.data.streaming.manifest import WrittenShard
from raypath.components.data.streaming.shard_storage import Origin, fetched, upload_copy

MODEL_FILES = ("*.json", "*.safetensors")
"""Configuration and weights of a model."""
ALL_FILES = ("**/*",)


@dataclass(frozen=True)
class StoredFolder:
    """Files of a folder, by their names relative to it."""

    origin: Origin
    files: tuple[WrittenShard, ...]

    @classmethod
    def of(
        cls, folder: Path, storage: ShardStorage, staging: Path, patterns: tuple[str, ...] = MODEL_FILES
    ) -> StoredFolder:
        """Upload the files that match a pattern and are not there yet. staging: a folder for copies of them."""
        found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
        files = []
        for path in found:
            name = path.relative_to(folder).as_posix()
            files.append(upload_copy(storage, path, staging / name).model_copy(update={"name": name}))
        return cls(Origin.of(storage), tuple(files))

    @contextlib.contextmanager
    def fetch(self) -> Iterator[Path]:
        """Yield a temporary folder with the files. Raises StoreError for one that is missing or corrupt."""
        # Beside the cache, whose files can then be linked; several processes of a machine hold them once.
        place = self.origin.cache.parent
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=place) as folder:
            for file in self.files:
                target = Path(folder) / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with fetched(self.origin, file) as path:
                    link(str(path), str(target))
            yield Path(folder)
