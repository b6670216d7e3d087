"""Folders in memory for the plaintext that a program needs as files: artifacts of a run, models in service.

    /dev/shm/raypath-UID-HASH/run/      artifacts, attempts and scratch folders of runs
    /dev/shm/raypath-UID-HASH/models/   registered versions that were fetched
    /dev/shm/raypath-UID-HASH/spill/    objects for which Ray has no memory
    .../encryption                      link to the keys of the home

Each process that uses a folder has a shared lock. The last one removes the folder when it ends; what a killed process
left is removed by the next that uses the home. The locks are in HOME/encryption, since the folder comes and goes.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from pathlib import Path

from raypath.components.core.errors import StoreError, UserError
from raypath.components.encryption.vault import FOLDER

VARIABLE = "RAYPATH_MEMORY"
"""Environment variable with a folder on a file system in memory; default /dev/shm."""
TEMPORARY = "tmp"
"""Folder for temporary files of the processes that use a working folder."""
_IN_MEMORY = ("tmpfs", "ramfs")
_held: dict[tuple[Path, str], WorkingFolder] = {}
_guard = threading.Lock()


class WorkingFolder:
    """Folder in memory of a home, used by this process from the first `acquire` to the last `release`."""

    def __init__(self, home: Path, name: str) -> None:
        self.path = base_folder(home) / name
        self._keys, self._lock_file = home.resolve() / FOLDER, home / FOLDER / f"{name}.lock"
        self._tempdir: str | None = None
        self._handle, self._users, self._process = -1, 0, 0

    @property
    def used(self) -> bool:
        """True while this process uses the folder."""
        return self._users > 0 and self._process == os.getpid()

    def acquire(self) -> Path:
        """Create the folder; what no living process uses is removed first. Raises UserError."""
        with _guard:
            if self._process != os.getpid():
                # A forked process has no use of its parent's.
                self._handle, self._users, self._process = -1, 0, os.getpid()
            if not self._users:
                self._begin()
            self._users += 1
        return self.path

    def _begin(self) -> None:
        handle = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self.path, ignore_errors=True)
            fcntl.flock(handle, fcntl.LOCK_SH)
            _make(self.path, self._keys)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        self._tempdir, tempfile.tempdir = tempfile.tempdir, str(self.path / TEMPORARY)

    def release(self) -> None:
        """End a use; the last user of all processes removes the folder."""
        with _guard:
            if not self._users or self._process != os.getpid():
                return
            self._users -= 1
            if self._users:
                return
            if tempfile.tempdir == str(self.path / TEMPORARY):
                tempfile.tempdir = self._tempdir
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self.path, ignore_errors=True)
                with contextlib.suppress(OSError):
                    # The link to the keys is all that a folder of no use has.
                    rest = set(os.listdir(self.path.parent))
                    if rest <= {FOLDER}:
                        shutil.rmtree(self.path.parent, ignore_errors=True)
            os.close(self._handle)
            self._handle = -1


def working_folder(home: Path, name: str) -> WorkingFolder:
    """Return the folder of an encrypted home with a name, one object a process."""
    with _guard:
        return _held.setdefault((home.resolve(), name), WorkingFolder(home, name))


def hold(home: Path, name: str) -> Path:
    """Return a folder that this process uses; if it does not yet, then until it ends. Raises UserError."""
    found = working_folder(home, name)
    if not found.used:
        found.acquire()
        atexit.register(found.release)
    return found.path


def clean(home: Path) -> None:
    """Remove the folders in memory that no process uses."""
    for name in ("run", "models"):
        if base_folder(home).is_dir():
            found = working_folder(home, name)
            found.acquire()
            found.release()


def base_folder(home: Path) -> Path:
    """Return the folder in memory of a home."""
    place = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    return memory_disk() / f"raypath-{os.getuid()}-{place}"


def memory_disk() -> Path:
    """Return a folder on a file system in memory. Raises UserError where there is none."""
    path = Path(os.environ.get(VARIABLE) or "/dev/shm")  # nosec B108 - checked below, and the folder in it is private
    if not path.is_dir() or _file_system(path.resolve()) not in _IN_MEMORY:
        what = f"an encrypted home needs a file system in memory for its plaintext, and {path} is none"
        raise UserError(what, fix=f"set ${VARIABLE} to a folder on a tmpfs")
    return path


def check_memory(folder: Path, wanted: int) -> None:
    """Raise StoreError if plaintext of `wanted` bytes does not fit into memory, or would use it up."""
    import psutil

    free = min(shutil.disk_usage(folder).free, psutil.virtual_memory().available)
    if wanted > free:
        what = f"an encrypted home needs {wanted >> 20} MiB of memory for an input, and {free >> 20} MiB are free"
        fix = f"free memory, enlarge the tmpfs or set ${VARIABLE} to another, then run again"
        raise StoreError(what, fix=fix)


def _make(path: Path, keys: Path) -> None:
    base = path.parent
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077 or base.is_symlink():
            raise UserError(f"{base} belongs to somebody else, or others may read it", fix="remove it")
        for folder in (path, path / TEMPORARY):
            folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (base / FOLDER).symlink_to(keys)
    except OSError as error:
        raise UserError(f"cannot create {path} ({error.strerror})", fix=f"correct ${VARIABLE}") from None


def _file_system(path: Path) -> str:
    """Return the type of the file system of a folder; "" where the system does not tell."""
    best, kind = "", ""
    with contextlib.suppress(OSError), open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, where, found, *_ = line.split()
            if path.is_relative_to(where) and len(where) >= len(best):
                best, kind = where, found
    return kind
