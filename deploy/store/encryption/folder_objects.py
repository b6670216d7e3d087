"""Objects as files below a folder, with the interface of a bucket. Files are written atomically."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from raypath.components.core.files import link, new_file


class FolderObjects:
    """Objects below a folder, named by their relative paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    def check(self) -> None:
        """Create the folder."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Return bytes and their digest; None when the file does not exist."""
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            data = (self.root / name).read_bytes()
            return data, hashlib.sha256(data).hexdigest()
        return None

    def size(self, name: str) -> int | None:
        """Return the size in bytes; None when the file does not exist."""
        with contextlib.suppress(FileNotFoundError):
            return (self.root / name).stat().st_size
        return None

    def open(self, name: str) -> BinaryIO:
        """Open a file. Raises FileNotFoundError."""
        return open(self.root / name, "rb")

    def put(self, name: str, data: bytes) -> None:
        """Write a file, replacing an existing one."""
        path = self._target(name)
        with new_file(path) as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists. Returns True when it was written."""
        path = self._target(name)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with new_file(temporary) as file:
                file.write(data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Write a file if it still has this digest; the caller has the lock of its step."""
        found = self.get(name)
        if found is None or found[1] != tag:
            return False
        self.put(name, data)
        return True

    def upload(self, path: Path, name: str) -> None:
        """Store a file, by a hard link where that is possible."""
        target = self._target(name)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            link(str(path), str(temporary))
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def download(self, name: str, path: Path, size: int) -> None:
        """Provide a stored file at a path. Raises FileNotFoundError."""
        link(str(self.root / name), str(path))

    def names(self, folder: str) -> list[str]:
        """List the files below a folder."""
        return [path.relative_to(self.root).as_posix() for path in (self.root / folder).rglob("*") if path.is_file()]

    def delete(self, names: Sequence[str]) -> None:
        """Delete files, and their folders when these are empty; missing ones are ignored."""
        for name in names:
            path = self.root / name
            path.unlink(missing_ok=True)
            for folder in path.relative_to(self.root).parents[:-2]:
                with contextlib.suppress(OSError):
                    (self.root / folder).rmdir()

    def _target(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path
