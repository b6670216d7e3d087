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
from raypath.components.data.streaming.shard_storage import Origin, describe, fetched, upload


@dataclass(frozen=True)
class StoredEncoder:
    """Files of a base model: configuration and weights."""

    origin: Origin
    files: tuple[WrittenShard, ...]

    @classmethod
    def of(cls, folder: Path, storage: ShardStorage, staging: Path) -> StoredEncoder:
        """Upload the files of a base model that are not there yet. staging: a folder for copies of them."""
        staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = []
        for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
            copy = staging / path.name
            shutil.copyfile(path, copy)
            files.append(describe(copy, path.name))
            upload(storage, copy, files[-1])
        return cls(Origin.of(storage), tuple(files))

    @contextlib.contextmanager
    def fetch(self) -> Iterator[Path]:
        """Yield a temporary folder with the files. Raises StoreError for one that is missing or corrupt."""
        with tempfile.TemporaryDirectory(prefix="raypath-encoder-") as folder:
            for file in self.files:
                with fetched(self.origin, file) as path:
                    shutil.copyfile(path, Path(folder) / file.name)
            yield Path(folder)
