"""Store whose artifacts, records and scratch folders are encrypted, in the home, a shared folder or a bucket.

Steps work on plaintext in a folder in memory (`working_folder`), from which nothing but sealed files leaves: artifacts
and records at the commit, scratch folders while the step runs. The layout is that of a store in a bucket.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from raypath.components.core.errors import StoreError
from raypath.components.data.sources.bucket import Bucket, Objects
from raypath.components.data.streaming.manifest import WrittenShard
from raypath.components.data.streaming.shard_storage import Origin
from raypath.components.encryption.vault import Vault
from raypath.components.encryption.working_folder import check_memory, working_folder
from raypath.deploy.store.encryption.folder_objects import FolderObjects
from raypath.deploy.store.encryption.sealed_objects import SealedObjects
from raypath.deploy.store.object_store import ObjectStore
from raypath.deploy.store.store import Store

MIRROR_SECONDS = 2.0
"""Seconds between two copies of a scratch folder: what a killed process loses."""


class EncryptedStore(ObjectStore):
    """Encrypted artifacts and records at `address`, by default in the home; plaintext is in memory until `close`."""

    def __init__(self, home: Path, vault: Vault, address: str = "") -> None:
        self._folders = [working_folder(home, name) for name in ("run", "models")]
        Store.__init__(self, home, self._folders[0].path)
        self.vault, self.address = vault, address
        place = Path(address).expanduser().resolve() if address else self.home
        stored: Objects = Bucket(address) if "://" in address else FolderObjects(place)
        self.bucket = SealedObjects(stored, vault, self.home / "attempts")
        self._open = False

    def open(self) -> EncryptedStore:
        """Create the folders and check the place. Raises UserError or Unavailable."""
        for folder in self._folders:
            folder.acquire()
        self._open = True
        atexit.register(self.close)
        Store.open(self)
        (self._listed / "artifacts").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.bucket.check()
        return self

    def close(self) -> None:
        """End the use of the folder in memory; the last process removes it."""
        atexit.unregister(self.close)
        if self._open:
            self._open = False
            for folder in reversed(self._folders):
                folder.release()

    @property
    def place(self) -> Path:
        """Folder with the encrypted artifacts and records."""
        return Path(self.address).expanduser().resolve() if self.address else self.home

    def read_stored(self, path: Path) -> bytes:
        """Return the plaintext of a file below `place`."""
        return self.vault.read(path, path.relative_to(self.place).as_posix())

    def free_bytes(self) -> int:
        """Return the free bytes of the disk with the encrypted files."""
        return shutil.disk_usage(self.home).free

    def shard_storage(self) -> None:
        """Return None: tasks write their shards to the folder in memory."""
        return

    @contextlib.contextmanager
    def _lease(self, key: str) -> Iterator[Callable[[], bool]]:
        if "://" in self.address:
            with super()._lease(key) as allowed:
                yield allowed
        else:
            yield lambda: True

    @property
    def _mirror_seconds(self) -> float:
        return super()._mirror_seconds if "://" in self.address else MIRROR_SECONDS

    def _stored_shards(self, folder: str, private: Path) -> list[tuple[Path, Origin, WrittenShard]]:
        return []

    def _check_free_space(self, wanted: int) -> None:
        check_memory(self.root, wanted)

    def _file(self, folder: str, name: str, path: Path, digest: str, size: int) -> None:
        try:
            super()._file(folder, name, path, digest, size)
        except StoreError:
            # Without a manifest the artifact counts as missing, and its step runs again.
            self.bucket.delete([f"manifests/{folder}.json"])
            raise
