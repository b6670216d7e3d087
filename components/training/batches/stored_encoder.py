"""Encoder in object storage, for tasks that compute features on nodes which do not have its folder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raypath.components.core.context import ShardStorage
from raypath.components.data.streaming.manifest import WrittenShard
from raypath.components.data.streaming.shard_storage import Origin, fetched, upload_copy


@dataclass(frozen=True)
class StoredEncoder:
    """Files of a base model: configuration and weights."""

    origin: Origin
    files: tuple[WrittenShard, ...]

    @classmethod
    def of(cls, folder: Path, storage: ShardStorage, staging: Path) -> StoredEncoder:
        """Upload the files of a base model that are not there yet. staging: a folder for copies of them."""
        files = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")])
        return cls(Origin.of(storage), tuple(upload_copy(storage, path, staging / path.name) for path in files))

    @contextlib.contextmanager
    def fetch(self) -> Iterator[Path]:
        """Yield a temporary folder with the files. Raises StoreError for one that is missing or corrupt."""
        with tempfile.TemporaryDirectory(prefix="raypath-encoder-") as folder:
            for file in self.files:
                with fetched(self.origin, file) as path:
                    shutil.copyfile(path, Path(folder) / file.name)
            yield Path(folder)
