"""Files that a kill leaves whole: the old content or the new, never half of it. And their digests."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_file(path: Path, aside: Path | None = None) -> Iterator[BinaryIO]:
    """A file to fill, of mode 0600, that takes the place of `path` once it is on the disk.

    An error inside leaves what was there before. aside: where it is filled, for who sweeps away what a kill left there.
    """
    aside = aside or path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a kill, sees the old one or the new one; mode 0600."""
    with new_file(path) as file:
        file.write(text.encode())


@contextmanager
def locked(file: Path, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Held by one at a time on this machine, whoever else wants it waits; it falls with its process. Raises OSError.

    how: LOCK_SH shares it with others who do, `| LOCK_NB` does not wait: then False says that somebody else has it.
    The file is made where it is missing, and stays.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, how)
            held = True
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(handle)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, of mode 0700, which takes the place of `folder` once its files are on the disk.

    An error inside leaves what was there before.
    """
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True, mode=0o700)
        yield aside
        for path in aside.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of some files, in the order of their names."""
    seen = hashlib.sha256()
    for path in sorted(paths):
        seen.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return seen.hexdigest()


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk without room is behind an error; safetensors and Arrow say so only in words."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(os.strerror(number) in str(error) for number in full)


def link(source: str, target: str) -> None:
    """The same file under another name, or a copy where the disk is another."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
