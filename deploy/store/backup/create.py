"""Make a snapshot of a home: store the blocks that are new, then the list of files."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Lock, Semaphore

from raypath.components.core.errors import DataError
from raypath.deploy.store.backup.repository import BLOCK, Repository, Snapshot, StoredFile, new_id
from raypath.deploy.store.backup.sources import SourceFile, source_files

_THREADS = 4
_IN_FLIGHT = 8
"""Blocks in memory at a time."""


@dataclass(frozen=True)
class Created:
    """New snapshot."""

    snapshot: Snapshot
    new_blocks: int
    new_bytes: int
    """Bytes of the blocks that were not stored before."""


def create(home: Path, repository: Repository, progress: Callable[[int], None] = lambda _: None) -> Created:
    """Store a snapshot of a home. progress: called with the bytes of each file that is done.

    Files whose size and time are those of the last snapshot are not read again. A crash leaves blocks that the next
    snapshot uses, and no snapshot. Raises StoreError, Unavailable.
    """
    before = repository.latest()
    known = {file.path: file for file in before.files} if before else {}
    writer, files = _Writer(repository), []
    with tempfile.TemporaryDirectory() as temporary, writer:
        for source in source_files(home, Path(temporary)):
            stored = _unchanged(source, known.get(source.name), writer.stored) or _store(source, writer)
            if stored is not None:
                files.append(stored)
                progress(stored.size)
    made = Snapshot(
        id=new_id(before), created=datetime.now(UTC), home=str(home), version=version("raypath"), files=tuple(files)
    )
    repository.add(made)
    lost = {name for file in files for name in file.blocks} - repository.stored()
    if lost:
        repository.forget(made)
        what = f"{len(lost)} blocks were removed from {repository.place.address} meanwhile"
        raise DataError(what, fix="do not prune while a backup is made; run the same command again")
    return Created(made, writer.blocks, writer.bytes)


def _unchanged(source: SourceFile, before: StoredFile | None, stored: set[str]) -> StoredFile | None:
    """Return the file as it is in the last snapshot; None for one that has to be read."""
    status = source.status
    if before is None or before.folder or (before.size, before.modified) != (status.st_size, status.st_mtime_ns):
        return None
    return before if stored.issuperset(before.blocks) else None


def _store(source: SourceFile, writer: _Writer) -> StoredFile | None:
    """Store the blocks of a file; None for one that was removed meanwhile. Of one that grows, what is there now."""
    mode, modified = stat.S_IMODE(source.status.st_mode), source.status.st_mtime_ns
    if stat.S_ISDIR(source.status.st_mode):
        return StoredFile(path=source.name, mode=mode, size=0, modified=modified, blocks=(), folder=True)
    try:
        file = open(source.path, "rb")  # noqa: SIM115 - only the opening may fail
    except FileNotFoundError:
        return None
    with file:
        size, names = 0, []
        for data in _blocks(file, source.status.st_size):
            names.append(writer.write(data))
            size += len(data)
    return StoredFile(path=source.name, mode=mode, size=size, modified=modified, blocks=tuple(names))


def _blocks(file: object, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file in blocks: a file that grows is stored as long as it was when listed."""
    left = size
    while left > 0 and (data := file.read(min(BLOCK, left))):  # type: ignore[attr-defined]
        left -= len(data)
        yield data


class _Writer:
    """Stores new blocks in threads; a context manager that waits for them."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.stored = repository.stored()
        self.blocks = self.bytes = 0
        self._lock, self._slots = Lock(), Semaphore(_IN_FLIGHT)
        self._pool = ThreadPoolExecutor(_THREADS)
        self._futures: list[Future[None]] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self._raise_errors()

    def write(self, data: bytes) -> str:
        """Store a block unless it is stored; returns its name. Raises the error of an earlier block."""
        name = self._repository.name(data)
        if name not in self.stored:
            self._raise_errors(only_done=True)
            self.stored.add(name)
            self.blocks, self.bytes = self.blocks + 1, self.bytes + len(data)
            self._slots.acquire()
            self._futures.append(self._pool.submit(self._write, name, data))
        return name

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._repository.write(name, data)
        finally:
            self._slots.release()

    def _raise_errors(self, only_done: bool = False) -> None:
        left = []
        for future in self._futures:
            if only_done and not future.done():
                left.append(future)
            else:
                future.result()
        self._futures = left
