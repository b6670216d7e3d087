"""Restore a snapshot, verify a repository, and prune what no snapshot uses."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from raypath.components.core.errors import DataError, RaypathError, UserError
from raypath.components.core.files import disk_full_as_store_error
from raypath.deploy.store.backup.repository import Repository, Snapshot, StoredFile

_THREADS = 4
Progress = Callable[[int], None]
"""Called with the bytes of each file or block that is done."""


def restore(repository: Repository, snapshot: Snapshot, home: Path, progress: Progress = lambda _: None) -> None:
    """Write the files of a snapshot to a home that does not exist or is empty.

    Every block is verified. The home appears when all files are on disk; after an error or a crash it is as before.
    Raises UserError for a home that has files, DataError for a block that is missing or corrupt, StoreError.
    """
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise UserError(f"{home} is not empty", fix="set RAYPATH_HOME to a new folder, or move this one away")
    full = disk_full_as_store_error(f"no space left for {home}")
    with full, _new_home(home) as temporary, ThreadPoolExecutor(_THREADS) as pool:
        for done in pool.map(lambda file: _write(repository, temporary, file), snapshot.files):
            progress(done)


@contextmanager
def _new_home(home: Path) -> Iterator[Path]:
    """Yield a folder that replaces `home`, also one with subfolders; unlike `new_folder`, which is flat."""
    temporary = home.with_name(f".{home.name}.restoring")
    temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked_folder(temporary) as free:
        if not free:
            raise UserError(f"another process restores {home}", fix="wait for its end")
        try:
            for path in temporary.iterdir():  # of a restore that was killed
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield temporary
            if home.exists():
                home.rmdir()
            temporary.rename(home)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def _locked_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder itself, so that no file is left; yields False if another process has the lock."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been removed, or become a home, meanwhile.
        yield folder.exists() and os.path.samestat(os.fstat(handle), folder.stat())
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


def _write(repository: Repository, root: Path, file: StoredFile) -> int:
    name = PurePosixPath(file.path)
    if name.is_absolute() or ".." in name.parts:
        raise DataError(f"the snapshot names a file outside the home: {file.path}", fix="restore another snapshot")
    path = root / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.folder:
        path.mkdir(mode=0o700, exist_ok=True)
        return 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode & 0o700), "wb") as target:
        for block in file.blocks:
            target.write(repository.read(block))
        target.flush()
        os.fsync(target.fileno())
    os.utime(path, ns=(file.modified, file.modified))
    return file.size


@dataclass(frozen=True)
class Checked:
    """Outcome of a verification."""

    snapshots: int
    blocks: int
    problems: tuple[str, ...]
    """Blocks that are missing or corrupt, with the snapshots and files that need them."""
    unused: int
    """Blocks that no snapshot uses."""


def verify(repository: Repository, progress: Progress = lambda _: None) -> Checked:
    """Read and decrypt every block that a snapshot uses. Raises DataError for a corrupt snapshot."""
    snapshots = repository.snapshots()
    users: dict[str, str] = {}
    for snapshot in snapshots:
        for file in snapshot.files:
            for block in file.blocks:
                users.setdefault(block, f"{file.path} of {snapshot.id}")

    def check(block: str) -> str:
        try:
            progress(len(repository.read(block)))
        except RaypathError as error:
            return f"{error.what} ({users[block]})"
        return ""

    with ThreadPoolExecutor(_THREADS) as pool:
        problems = tuple(filter(None, pool.map(check, sorted(users))))
    return Checked(len(snapshots), len(users), problems, len(repository.stored() - users.keys()))


def prune(repository: Repository, keep: int) -> tuple[int, int]:
    """Delete all but the last `keep` snapshots, then the blocks that none uses; returns the numbers of both.

    Raises DataError for a corrupt snapshot: nothing is deleted then.
    """
    snapshots = repository.snapshots()
    old, kept = snapshots[:-keep], snapshots[-keep:]
    used = {block for snapshot in kept for file in snapshot.files for block in file.blocks}
    for snapshot in old:
        repository.forget(snapshot)
    unused = repository.stored() - used
    repository.delete(sorted(unused))
    return len(old), len(unused)
