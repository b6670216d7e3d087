"""A step's scratch folder on object storage, so that its checkpoints outlive the node.

    scratch/<key>/index.json      which files, with SHA-256 and size; written last, so a reader sees a whole state
    scratch/<key>/<sha256>        their contents

While a step runs, what has changed is copied every PERIOD seconds, or less often when copying takes long: it takes a
tenth of the time at most. A lost node costs what was done since the last copy. A copy moves the bytes of each new
checkpoint (with AdamW three times the trained weights) and reads them once more for their digests.
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
from raypath.deploy.store.bucket import Bucket

PERIOD = 20.0
"""Seconds between two copies."""
SMALL = 1 << 20
"""Bytes below which a file is copied before it is uploaded; larger ones have been written once they have their name."""
_STATE = ".mirror"
Seen = dict[str, tuple[int, int]]
log = logging.getLogger("raypath.store")


class Index(BaseModel):
    """A state of the folder."""

    model_config = ConfigDict(frozen=True)

    serial: int = 0
    """Grows with every copy, whichever machine makes it."""
    files: dict[str, tuple[str, int]] = {}
    """(SHA-256, bytes) by name."""


class ScratchMirror:
    """Brings `folder` up to date, then copies it as the step runs. `allowed` is asked before a copy is made valid."""

    def __init__(self, bucket: Bucket, key: str, folder: Path, allowed: Callable[[], bool]) -> None:
        self._bucket, self._at, self._folder, self._allowed = bucket, f"scratch/{key}", folder, allowed
        self._index = Index()
        self._seen: Seen = {}
        self._digests: dict[tuple[str, int, int], str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raypath-scratch", daemon=True)

    def start(self) -> None:
        """Take the remote state if it is newer than ours, and begin to copy."""
        found = self._bucket.get(f"{self._at}/index.json")
        self._index = Index.model_validate_json(found[0]) if found else Index()
        if self._index.serial > self._known():
            self._restore()
        self._thread.start()

    def stop(self, last: bool) -> None:
        """End; `last`: copy once more, for the next attempt may be another machine's."""
        self._stop.set()
        self._thread.join()
        if last:
            self._try()

    def _run(self) -> None:
        pause = PERIOD
        while not self._stop.wait(pause):
            started = time.monotonic()
            self._try()
            pause = max(PERIOD, 9 * (time.monotonic() - started))

    def _try(self) -> None:
        try:
            self.copy()
        except (RaypathError, OSError) as error:
            # The step itself is well; the next copy may succeed, and the local folder has everything.
            log.warning("the checkpoints were not copied to %s: %s", self._bucket.address, error)

    def copy(self) -> None:
        """Copy what has changed; the remote state is the old one or the new one, whole."""
        seen = _look(self._folder)
        if seen == self._seen:
            return
        aside = self._folder.with_name(f".{self._folder.name}.{uuid.uuid4().hex[:8]}")
        try:
            taken = _freeze(self._folder, aside)
            if taken is not None:
                self._send(aside, taken)
                self._seen = taken
        finally:
            shutil.rmtree(aside, ignore_errors=True)

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
        self._note()
        self._bucket.delete([f"{self._at}/{digest}" for digest in sorted(gone)])

    def _restore(self) -> None:
        """Make the local folder what the index says. A copy that is damaged is left out: the step starts anew."""
        aside = self._folder.with_name(f".{self._folder.name}.{uuid.uuid4().hex[:8]}")
        aside.mkdir(parents=True, mode=0o700)
        try:
            for name, (digest, size) in self._index.files.items():
                path = aside / name
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._bucket.download(f"{self._at}/{digest}", path, size)
                if file_digest(path) != digest:
                    path.unlink()
                    log.warning("a damaged copy of %s is left out", name)
            shutil.rmtree(self._folder, ignore_errors=True)
            os.rename(aside, self._folder)
            self._note()
        except FileNotFoundError:
            log.warning("the copied checkpoints in %s are not whole; the step starts anew", self._bucket.address)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _known(self) -> int:
        """The serial of the state that the local folder comes from; -1 where there is no folder."""
        try:
            return Index.model_validate_json((self._folder / _STATE).read_text("utf-8")).serial
        except (OSError, ValidationError):
            return 0 if self._folder.is_dir() and not self._index.files else -1

    def _note(self) -> None:
        if self._folder.is_dir():
            write_atomically(self._folder / _STATE, Index(serial=self._index.serial).model_dump_json())


def forget(bucket: Bucket, key: str) -> None:
    """Remove a step's copies, the index first."""
    bucket.delete([f"scratch/{key}/index.json"])
    bucket.delete(bucket.names(f"scratch/{key}"))


def _look(folder: Path) -> Seen:
    """(bytes, change time) of the files that have their final name; what is being written aside begins with a dot."""
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


def _freeze(folder: Path, aside: Path) -> Seen | None:
    """The folder as it was at one moment, by links; None when it never held still for that long."""
    for _ in range(5):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        before = _look(folder)
        try:
            for name, (size, _) in before.items():
                (aside / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                (shutil.copyfile if size < SMALL else os.link)(folder / name, aside / name)
        except FileNotFoundError:
            continue
        if _look(folder) == before:
            return before
    return None
