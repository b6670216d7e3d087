"""The store: content-addressed artifacts and atomic step records below one folder.

HOME/
  artifacts/<digest>/     a committed step's files; the name is the SHA-256 of its files and facts
  records/<key>.json      written last, by rename: that it exists means the step is done
  attempts/<key>-<id>/    private, thrown away unless committed
  scratch/<key>/          kept between attempts of a step (checkpoints), removed once it is committed
  locks/<key>             held by the process that runs the step
  runs/<run>.json         what a run did, step by step
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.artifacts import Artifact
from components.core.durable import file_digest, write_atomically
from components.core.errors import StoreError

A = TypeVar("A", bound=Artifact)


class Record(BaseModel):
    """A committed step: what went into its key, what came out, and when."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    step: str
    component: str
    ingredients: dict[str, str]
    artifact: dict[str, Any]
    started: float
    """Unix time, seconds."""
    seconds: float
    run: str = ""


class Store:
    """Artifacts and records below `home`. Safe for several processes on one file system."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()

    def open(self) -> Store:
        """Make the folders, readable by their owner only."""
        for name in ("artifacts", "records", "attempts", "scratch", "locks", "runs"):
            (self.home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        return self

    def record(self, key: str) -> Record | None:
        """The record of a step, None when it is not committed or its files are gone."""
        try:
            found = Record.model_validate_json((self.home / "records" / f"{key}.json").read_text("utf-8"))
        except (OSError, ValidationError):
            return None
        return found if Path(found.artifact["uri"]).is_dir() else None

    def forget(self, key: str) -> None:
        """Remove a step's record and scratch, so that it runs from its beginning."""
        (self.home / "records" / f"{key}.json").unlink(missing_ok=True)
        shutil.rmtree(self.scratch(key), ignore_errors=True)

    def attempt(self, key: str) -> Path:
        """A new private folder for one attempt; older ones of the same step are thrown away."""
        for old in (self.home / "attempts").glob(f"{key}-*"):
            shutil.rmtree(old, ignore_errors=True)
        folder = self.home / "attempts" / f"{key}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def scratch(self, key: str) -> Path:
        """The folder that attempts of one step share."""
        return self.home / "scratch" / key

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """One process at a time runs a step; the lock ends with its process."""
        path = self.home / "locks" / key
        with open(path, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def commit(self, record: Record, artifact: A, attempt: Path) -> A:
        """Move an attempt to its content address, then write the record. Returns the artifact with its address.

        Raises StoreError when the artifact names files that are not there or the disk is full.
        """
        try:
            files = hash_files(attempt)
            name = _settle(artifact, files, attempt, attempt).digest
            final = self.home / "artifacts" / name
            settled = _settle(artifact, files, attempt, final)
            _move(attempt, final)
            done = record.model_copy(update={"artifact": settled.model_dump(mode="json")})
            write_atomically(self.home / "records" / f"{record.key}.json", done.model_dump_json(indent=1))
        except OSError as error:
            raise StoreError(
                f"cannot commit to {self.home}: {error.strerror}", fix="free room, then run again"
            ) from None
        shutil.rmtree(self.scratch(record.key), ignore_errors=True)
        return settled

    def free_bytes(self) -> int:
        """Room left on the store's disk."""
        return shutil.disk_usage(self.home).free


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder by relative name; each is flushed to disk on the way."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found[path.relative_to(folder).as_posix()] = file_digest(path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return found


def _settle(artifact: A, files: dict[str, str], attempt: Path, final: Path) -> A:
    """The artifact and its parts with address and digest; a part that was committed before keeps its own."""
    if artifact.digest:
        return artifact
    if not (attempt / artifact.uri).is_dir():
        raise StoreError(f"the step returned {artifact.uri!r}, which it did not write", fix="write below ctx.out")
    parts = {name: _settle(part, files, attempt, final) for name, part in artifact.parts()}
    prefix = f"{artifact.uri}/" if artifact.uri else ""
    inside = {name: digest for name, digest in files.items() if name.startswith(prefix)}
    facts = [type(artifact).__name__, artifact.facts(), {k: p.digest for k, p in parts.items()}, inside]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return artifact.settled(str(final / artifact.uri), digest, **parts)


def _move(attempt: Path, final: Path) -> None:
    """Rename into place; the same content may be there already."""
    if not final.is_dir():
        try:
            os.rename(attempt, final)
        except OSError:
            if not final.is_dir():
                raise
    shutil.rmtree(attempt, ignore_errors=True)
