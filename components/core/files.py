"""Atomic writes, file locks and digests: after a crash a file has its old or its new content, never a part of it."""

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

from raypath.components.core.errors import PlatformError, StoreError


@contextmanager
def new_file(path: Path, temporary: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file of mode 0600 that is flushed to disk and then replaces `path`.

    After an error `path` is unchanged. temporary: path of the temporary file, for callers that clean up after a crash.
    """
    temporary = temporary or path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Replace a file atomically; mode 0600."""
    with new_file(path) as file:
        file.write(text.encode())


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return a value that changes with the file; (0,) without one. Raises OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0,)
    return found.st_mtime_ns, found.st_size, found.st_ino


def write_new_secret(path: Path, text: str) -> None:
    """Write a text to a new file of mode 0600, and flush it to disk. Raises OSError, also for a file that exists."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def user_cache(name: str) -> Path:
    """Return a folder of this user's cache, created: $RAYPATH_CACHE/NAME, else raypath/NAME in the user's cache folder.

    Models and compiled code are opened from it. Raises PlatformError for a folder of another user, as there may be
    below /tmp, and for one that others may write to.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("RAYPATH_CACHE") or Path(home) / "raypath") / name
    fix = "set RAYPATH_CACHE to a folder of your own"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        owners = {found.st_uid, folder.lstat().st_uid, folder.parent.stat().st_uid}
    except OSError as error:
        raise PlatformError(f"cannot use {folder}: {error.strerror}", fix=fix) from None
    if owners - {os.getuid(), 0} or found.st_mode & 0o022:
        raise PlatformError(f"{folder} belongs to somebody else, or others may write to it", fix=fix)
    return folder


@contextmanager
def locked(file: Path, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Lock a file between processes of this machine; the lock is released when its process ends. Raises OSError.

    how: LOCK_SH for a shared lock; `| LOCK_NB` to not wait, which yields False if another process has the lock.
    The file is created if it does not exist, and is not removed.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, how)
            acquired = True
        except BlockingIOError:
            acquired = False
        yield acquired
    finally:
        os.close(handle)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Create a temporary folder of mode 0700 whose files are flushed to disk before it replaces `folder`.

    After an error `folder` is unchanged.
    """
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True, mode=0o700)
        yield temporary
        for path in temporary.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over the names and contents of files, sorted by path."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def is_disk_full(error: BaseException) -> bool:
    """Return True if an error was caused by a full disk; safetensors and Arrow have it only in the message."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(os.strerror(number) in str(error) for number in full)


@contextmanager
def disk_full_as_store_error(what: str) -> Iterator[None]:
    """Raise StoreError in place of an error that a full disk caused. what: such as "no space left for FOLDER"."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise StoreError(what, fix="free disk space, then run the same command again") from None
        raise


def link(source: str, target: str) -> None:
    """Hard-link a file, or copy it if the target is on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
