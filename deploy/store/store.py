"""The store: content-addressed artifacts and atomic step records below one folder.

HOME/
  artifacts/<digest>/     a committed step's files; the name is the SHA-256 of its files and facts
  records/<key>.json      written last, by rename: that it exists means the step is done
  attempts/<key>-<id>/    private, thrown away unless committed
  scratch/<key>/          kept between attempts of a step (checkpoints), removed once it is committed
  locks/<key>             held by the process that runs the step
  runs/<run>.json         what a run did, step by step

A record's addresses are relative, so that the folder may lie elsewhere on another machine. `open_store` chooses between
this folder, one that machines share, and object storage (`object_store`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from raypath.components.core.artifacts import Artifact
from raypath.components.core.errors import StoreError, UserError
from raypath.components.core.files import file_digest, locked, write_atomically

A = TypeVar("A", bound=Artifact)
SHARED = "RAYPATH_STORE"
"""Names in the environment where artifacts and records are shared: s3://BUCKET/FOLDER, or a folder that all machines
mount; "" keeps them at home."""
_PLACE = re.compile(r"(?:^|/)artifacts/([0-9a-f]{64})(?:\.[0-9a-f]{8})?(?:/(.*))?$")


class Record(BaseModel):
    """A committed step: what went into its key, what came out, and when."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_by_name=True)

    key: str
    step: str
    component: str
    key_inputs: dict[str, str] = Field(validation_alias=AliasChoices("key_inputs", "ingredients"))
    artifact: dict[str, Any]
    started: float
    """Unix time, seconds."""
    seconds: float
    run: str = ""


class Store:
    """Artifacts and records below `root` (by default `home`). Safe for several processes on one file system.

    With a `root` of its own, `home` has only the diary; machines that mount `root` share the rest, locks included.
    """

    def __init__(self, home: Path, root: Path | None = None) -> None:
        self.home = home.resolve()
        self.root = root.expanduser().resolve() if root else self.home
        self.address = str(self.root) if root else ""
        """What `open_store` takes to open this store elsewhere."""

    def open(self) -> Store:
        """Make the folders, readable by their owner only. Raises UserError where they cannot be made."""
        try:
            for name in ("attempts", "runs"):
                (self.home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("artifacts", "records", "attempts", "scratch", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            what = f"cannot make folders in {error.filename}: {error.strerror}"
            raise UserError(what, fix=f"correct RAYPATH_HOME or {SHARED}") from None
        return self

    def record(self, key: str) -> Record | None:
        """The record of a step, None when it is not committed or its files are gone."""
        try:
            found = Record.model_validate_json((self.root / "records" / f"{key}.json").read_text("utf-8"))
        except (OSError, ValidationError):
            return None
        found = found.model_copy(update={"artifact": placed(found.artifact, self.root)})
        return found if Path(found.artifact["uri"]).is_dir() else None

    def local(self, artifact: A) -> A:
        """The artifact and its parts with their files on this machine. Raises StoreError when they are lost."""
        here = self._present(artifact.uri)
        # Parts that lie inside are here by now.
        return artifact.finalized(here, artifact.digest, **{name: self.local(part) for name, part in artifact.nested()})

    def _present(self, uri: str) -> str:
        """Where the files of an address are on this machine."""
        here = _here(uri, self.root)
        if here is not None and not here.is_dir():
            raise StoreError(f"{here} is gone", fix="run the same line again, which makes it anew")
        return str(here or uri)

    def forget(self, key: str) -> None:
        """Remove a step's record and scratch, so that it runs from its beginning."""
        (self.root / "records" / f"{key}.json").unlink(missing_ok=True)
        shutil.rmtree(self.scratch(key), ignore_errors=True)

    def attempt(self, key: str) -> Path:
        """A new private folder for one attempt; older ones of the same step are thrown away."""
        for old in (self.root / "attempts").glob(f"{key}-*"):
            shutil.rmtree(old, ignore_errors=True)
        folder = self.root / "attempts" / f"{key}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def scratch(self, key: str) -> Path:
        """The folder that attempts of one step share."""
        return self.root / "scratch" / key

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """One process at a time runs a step; the lock ends with its process."""
        with locked(self.root / "locks" / key):
            yield

    def commit(self, record: Record, artifact: A, attempt: Path) -> A:
        """Move an attempt to its content address, then write the record. Returns the artifact with its address.

        Raises StoreError when the artifact names files that are not there or the disk is full.
        """
        try:
            files = hash_files(attempt)
            name = _settle(artifact, files, attempt, attempt).digest
            final = self.root / "artifacts" / name
            settled = _settle(artifact, files, attempt, final)
            _move(attempt, final)
            done = record.model_copy(update={"artifact": unplaced(settled.model_dump(mode="json"))})
            kept = self._publish(done, name, files)
        except OSError as error:
            raise StoreError(
                f"cannot commit to {self.root}: {error.strerror}", fix="free room, then run again"
            ) from None
        shutil.rmtree(self.scratch(record.key), ignore_errors=True)
        # Another machine may have been first, with another result.
        return settled if kept is done else type(artifact).model_validate_json(json.dumps(kept.artifact))

    def _publish(self, record: Record, name: str, files: dict[str, str]) -> Record:
        """Write the record of the content `name`; returns the one that counts."""
        write_atomically(self.root / "records" / f"{record.key}.json", record.model_dump_json(indent=1))
        return record

    def free_bytes(self) -> int:
        """Room left on the store's disk."""
        return shutil.disk_usage(self.root).free


def place_of(uri: str) -> tuple[str, str] | None:
    """(content address, path below it) of a committed artifact's address, wherever its store lies; None for another."""
    found = _PLACE.search(uri)
    return (found[1], found[2] or "") if found else None


def _here(uri: str, root: Path) -> Path | None:
    place = place_of(uri)
    return root.joinpath("artifacts", *place) if place else None


def placed(artifact: dict[str, Any], root: Path) -> dict[str, Any]:
    """An artifact's JSON with its addresses, also of what it holds, below `root`."""
    return _moved(artifact, lambda uri: str(_here(uri, root) or uri))


def unplaced(artifact: dict[str, Any]) -> dict[str, Any]:
    """The same with addresses that do not say where the store lies: artifacts/<digest>/..."""
    return _moved(artifact, lambda uri: str(_here(uri, Path()) or uri))


def _moved(artifact: dict[str, Any], move: Callable[[str], str]) -> dict[str, Any]:
    inside = {k: _moved(v, move) if isinstance(v, dict) and "digest" in v else v for k, v in artifact.items()}
    return {**inside, "uri": move(artifact["uri"])} if "uri" in artifact else inside


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
    parts = {name: _settle(part, files, attempt, final) for name, part in artifact.nested()}
    prefix = f"{artifact.uri}/" if artifact.uri else ""
    inside = {name: digest for name, digest in files.items() if name.startswith(prefix)}
    facts = [type(artifact).__name__, artifact.facts(), {k: p.digest for k, p in parts.items()}, inside]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return artifact.finalized(str(final / artifact.uri), digest, **parts)


def _move(attempt: Path, final: Path) -> None:
    """Rename into place; the same content may be there already."""
    if not final.is_dir():
        try:
            os.rename(attempt, final)
        except OSError:
            if not final.is_dir():
                raise
    shutil.rmtree(attempt, ignore_errors=True)
