"""Objects that are encrypted before they are stored, under their names."""

from __future__ import annotations

import contextlib
import io
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from raypath.components.core.errors import StoreError
from raypath.components.data.sources.bucket import Objects
from raypath.components.encryption.envelope import MAGIC, sealed_size
from raypath.components.encryption.vault import Vault


class SealedObjects:
    """Encrypted objects of a folder or a bucket. temporary: folder for files on their way, which are encrypted too."""

    def __init__(self, stored: Objects, vault: Vault, temporary: Path) -> None:
        self.stored, self.vault, self.temporary = stored, vault, temporary
        self.address = stored.address

    def check(self) -> None:
        """Raise UserError or Unavailable for a place that cannot be used."""
        self.stored.check()

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Return an object's plaintext and the tag of its stored form; None when it does not exist."""
        found = self.stored.get(name)
        if found is None:
            return None
        if not found[0].startswith(MAGIC):
            raise StoreError(f"{self.address}/{name} is in plaintext", fix="`raypath encryption init` encrypts it")
        return self.vault.open(name, found[0]), found[1]

    def size(self, name: str) -> int | None:
        """Return the size of an object's stored form; None when it does not exist."""
        return self.stored.size(name)

    def open(self, name: str) -> BinaryIO:
        """Return an object's plaintext in memory. Raises FileNotFoundError, StoreError."""
        found = self.get(name)
        if found is None:
            raise FileNotFoundError(name)
        return io.BytesIO(found[0])

    def put(self, name: str, data: bytes) -> None:
        """Write an object, replacing an existing one."""
        self.stored.put(name, self.vault.seal(name, data))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless it exists. Returns True when it was written."""
        return self.stored.create(name, self.vault.seal(name, data))

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Write an object if it still has this tag. Returns True when it was written."""
        return self.stored.replace(name, self.vault.seal(name, data), tag)

    def upload(self, path: Path, name: str) -> None:
        """Encrypt and store a file."""
        with self._file() as sealed:
            self.vault.seal_file(name, path, sealed)
            self.stored.upload(sealed, name)

    def download(self, name: str, path: Path, size: int) -> None:
        """Decrypt an object of `size` bytes to a file. Raises FileNotFoundError, StoreError for an altered one."""
        with self._file() as sealed:
            self.stored.download(name, sealed, sealed_size(size, name))
            self.vault.open_file(name, sealed, path)

    def names(self, folder: str) -> list[str]:
        """List the objects below a folder."""
        return self.stored.names(folder)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; missing ones are ignored."""
        self.stored.delete(names)

    @contextlib.contextmanager
    def _file(self) -> Iterator[Path]:
        path = self.temporary / f"sealed-{uuid.uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
