"""Places of backups: a folder, or a prefix of an S3-compatible bucket. Objects are written once."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Protocol

from raypath.components.core.errors import DataError, ParamsError, StoreError
from raypath.components.core.files import is_disk_full, new_file


class Place(Protocol):
    """Objects by name, such as `blocks/ab/ab12...`."""

    address: str

    def get(self, name: str) -> bytes | None:
        """Return an object; None for a missing one."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write an object unless it exists. When it returns the object is durable."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write an object, atomically."""
        ...

    def names(self, folder: str) -> set[str]:
        """Return the names of all objects below a folder."""
        ...

    def delete(self, names: list[str]) -> None:
        """Delete objects."""
        ...


def open_place(address: str) -> Place:
    """Open a folder or s3://BUCKET/PREFIX. Raises ParamsError for another kind of address."""
    if address.startswith("s3://"):
        return BucketPlace(address)
    if "://" in address:
        raise ParamsError(f"backups cannot be stored at {address}", fix="name a folder, or s3://BUCKET/PREFIX")
    return FolderPlace(address)


class FolderPlace:
    """Folder, such as one of another disk that is mounted."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._root = Path(address).expanduser().resolve()

    def get(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{self._root / name} cannot be read ({error.strerror})", fix="check the disk") from None

    def create(self, name: str, data: bytes) -> None:
        if not (self._root / name).exists():
            self.replace(name, data)

    def replace(self, name: str, data: bytes) -> None:
        path = self._root / name
        try:
            _make_private(path.parent)
            with new_file(path, path.with_name(f".{uuid.uuid4().hex}")) as file:
                file.write(data)
            _flush(path.parent)
        except OSError as error:
            why = "no space left" if is_disk_full(error) else error.strerror
            raise StoreError(f"cannot write to {self._root} ({why})", fix="free space there, then run again") from None

    def names(self, folder: str) -> set[str]:
        root = self._root / folder
        found = (Path(path) / name for path, _, names in os.walk(root) for name in names if not name.startswith("."))
        return {str(path.relative_to(self._root)) for path in found}

    def delete(self, names: list[str]) -> None:
        for name in names:
            (self._root / name).unlink(missing_ok=True)


def _make_private(folder: Path) -> None:
    """Create a folder and those above it, readable by their owner only."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _flush(folder: Path) -> None:
    """Make the name of a new file durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class BucketPlace:
    """Prefix of an S3-compatible bucket."""

    def __init__(self, address: str) -> None:
        from raypath.components.data.sources.bucket import Bucket

        self.address = address
        self._bucket = Bucket(address)

    def get(self, name: str) -> bytes | None:
        found = self._bucket.get(name)
        return None if found is None else found[0]

    def create(self, name: str, data: bytes) -> None:
        self._bucket.create(name, data)

    def replace(self, name: str, data: bytes) -> None:
        self._bucket.put(name, data)

    def names(self, folder: str) -> set[str]:
        return set(self._bucket.names(folder))

    def delete(self, names: list[str]) -> None:
        self._bucket.delete(names)
