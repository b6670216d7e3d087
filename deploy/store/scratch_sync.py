"""Copies of a step's scratch folder on object storage, so that its checkpoints survive the loss of a node.

    scratch/<key>/index.json      files with SHA-256 and size; written last, so that a reader sees a consistent state
    scratch/<key>/<sha256>        contents of the files

While a step runs, changed files are copied every PERIOD seconds, or less often when copying is slow: it takes at most a
tenth of the time. When a node is lost, the work since the last copy is lost. A copy transfers each new checkpoint (with
AdamW three times the size of the trained weights) and reads it once more to compute its digest.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.errors import RaypathError
from raypath.components.core.files import file_digest, write_atomically
from raypath.components.data.sources.bucket import Objects

PERIOD = 20.0
"""Seconds between two copies."""
SMALL = 1 << 20
"""Size in bytes below which a file is copied before the upload; larger files are renamed into place once complete."""
_STATE = ".mirror"
Seen = dict[str, tuple[int, int]]
log = logging.getLogger("raypath.store")


class Index(BaseModel):
    """State of the folder."""

    model_config = ConfigDict(frozen=True)

    serial: int = 0
    """Version number, incremented with every copy on any machine."""
    files: dict[str, tuple[str, int]] = {}
    """(SHA-256, bytes) by name."""


class ScratchMirror:
    """Restores `folder`, then copies it while the step runs. A copy becomes valid only if `allowed` returns True.

    period: Seconds between two copies; default PERIOD.
    """

    def __init__(
        self, bucket: Objects, key: str, folder: Path, allowed: Callable[[], bool], period: float | None = None
    ) -> None:
        self._period = PERIOD if period is None else period
        self._bucket, self._at, self._folder, self._allowed = bucket, f"scratch/{key}", folder, allowed
        self._index = Index()
        self._seen: Seen = {}
        self._digests: dict[tuple[str, int, int], str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raypath-scratch", daemon=True)

    def start(self) -> None:
        """Restore the remote state if it is newer than the local one, and start copying."""
        found = self._bucket.get(f"{self._at}/index.json")
        self._index = Index.model_validate_json(found[0]) if found else Index()
        if self._index.serial > self._local_version():
            self._restore()
        self._thread.start()

    def stop(self, last: bool) -> None:
        """Stop copying. last: copy once more, for an attempt on another machine."""
        self._stop.set()
        self._thread.join()
        if last:
            self._try()

    def _run(self) -> None:
        pause = self._period
        while not self._stop.wait(pause):
            started = time.monotonic()
            self._try()
            pause = max(self._period, 9 * (time.monotonic() - started))

    def _try(self) -> None:
        try:
            self.copy()
        except (RaypathError, OSError) as error:
            # The step is not affected: the next copy may succeed, and the local folder is complete.
            log.warning("the checkpoints were not copied to %s: %s", self._bucket.address, error)

    def copy(self) -> None:
        """Copy changed files; the remote state changes atomically."""
        seen = _scan(self._folder)
        if seen == self._seen:
            return
        temporary = self._folder.with_name(f".{self._folder.name}.{uuid.uuid4().hex[:8]}")
        try:
            taken = _freeze(self._folder, temporary)
            if taken is not None:
                self._send(temporary, taken)
                self._seen = taken
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _send(self, frozen: Path, seen: Seen) -> None:
        there = {digest for digest, _ in self._index.files.values()}
        files, known = {}, self._digests
        self._digests = {(n, *mark): known.get((n, *mark)) or file_digest(frozen / n) for n, mark in seen.items()}
        for (name, _, _), digest in self._digests.items():
            path = frozen / name
            if digest not in there:
                self._bucket.upload(path, f"{self._at}/{digest}")
                there.add(digest)
            files[name] = (digest, path.stat().st_size)
        if not self._allowed():
            return
        new = Index(serial=self._index.serial + 1, files=files)
        self._bucket.put(f"{self._at}/index.json", new.model_dump_json().encode())
        gone = {digest for digest, _ in self._index.files.values()} - {digest for digest, _ in files.values()}
        self._index = new
        self._save_version()
        self._bucket.delete([f"{self._at}/{digest}" for digest in sorted(gone)])

    def _restore(self) -> None:
        """Restore the local folder from the index. Corrupt copies are left out."""
        temporary = self._folder.with_name(f".{self._folder.name}.{uuid.uuid4().hex[:8]}")
        temporary.mkdir(parents=True, mode=0o700)
        try:
            for name, (digest, size) in self._index.files.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._bucket.download(f"{self._at}/{digest}", path, size)
                if file_digest(path) != digest:
                    path.unlink()
                    log.warning("a corrupt copy of %s is left out", name)
            shutil.rmtree(self._folder, ignore_errors=True)
            os.rename(temporary, self._folder)
            self._save_version()
        except FileNotFoundError:
            log.warning(
                "the copied checkpoints in %s are incomplete; the step starts from its beginning", self._bucket.address
            )
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _local_version(self) -> int:
        """Return the version number of the local folder; -1 when there is no folder."""
        try:
            return Index.model_validate_json((self._folder / _STATE).read_text("utf-8")).serial
        except (OSError, ValidationError):
            return 0 if self._folder.is_dir() and not self._index.files else -1

    def _save_version(self) -> None:
        if self._folder.is_dir():
            write_atomically(self._folder / _STATE, Index(serial=self._index.serial).model_dump_json())


def forget(bucket: Objects, key: str) -> None:
    """Delete the copies of a step, the index first."""
    bucket.delete([f"scratch/{key}/index.json"])
    bucket.delete(bucket.names(f"scratch/{key}"))


def _scan(folder: Path) -> Seen:
    """Return size and modification time of all complete files; names of temporary files begin with a dot."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue
        try:
            if path.is_file() and not path.is_symlink():
                found[name.as_posix()] = (path.stat().st_size, path.stat().st_mtime_ns)
        except FileNotFoundError:
            continue
    return found


def _freeze(folder: Path, temporary: Path) -> Seen | None:
    """Link a consistent snapshot of the folder to `temporary`; None when the folder changes all the time."""
    for _ in range(5):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        before = _scan(folder)
        try:
            for name, (size, _) in before.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                (shutil.copyfile if size < SMALL else os.link)(folder / name, temporary / name)
        except FileNotFoundError:
            continue
        if _scan(folder) == before:
            return before
    return None
