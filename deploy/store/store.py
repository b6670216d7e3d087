"""Artifact store: content-addressed artifacts and atomic step records below one folder.

HOME/
  artifacts/<digest>/     files of a committed step; the name is the SHA-256 of its files and metadata
  records/<key>.json      written last, by rename: a step with a record is done
  attempts/<key>-<id>/    private folder of an attempt, removed unless committed
  scratch/<key>/          checkpoints, kept between attempts of a step and removed after the commit
  locks/<key>             held by the process that runs the step
  runs/<run>.json         run history
  raypath.json            format version (home_format)

URIs in records are relative, so that the folder may be at another path on another machine. `open_store` chooses between
a local folder, a shared folder, and object storage (`object_store`).
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
from raypath.components.core.context import ShardStorage
from raypath.components.core.errors import StoreError, UserError
from raypath.components.core.files import file_digest, locked, write_atomically
from raypath.components.data.sources.bucket import Objects
from raypath.components.data.streaming.manifest import MANIFEST, read_manifest
from raypath.components.data.streaming.shard_storage import ORIGIN, read_origin
from raypath.components.encryption.envelope import MAGIC
from raypath.components.encryption.vault import FOLDER
from raypath.deploy.store.encryption.folder_objects import FolderObjects
from raypath.deploy.store.home_format import check_format

A = TypeVar("A", bound=Artifact)
SHARED = "RAYPATH_STORE"
"""Environment variable with the location of shared artifacts and records: s3://BUCKET/FOLDER, or a folder that all
machines mount; "" stores them in the home."""
_PLACE = re.compile(r"(?:^|/)artifacts/([0-9a-f]{64})(?:\.[0-9a-f]{8})?(?:/(.*))?$")


class Record(BaseModel):
    """Record of a committed step."""

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

    With another `root`, `home` contains only the run history; machines that mount `root` share the rest and its locks.
    """

    def __init__(self, home: Path, root: Path | None = None) -> None:
        self.home = home.resolve()
        self.root = root.expanduser().resolve() if root else self.home
        self.address = str(self.root) if root else ""
        """Second argument of `open_store` to open this store in another process."""

    def open(self) -> Store:
        """Create the folders, readable by their owner only. Raises UserError when that fails."""
        try:
            for name in ("attempts", "runs"):
                (self.home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("artifacts", "records", "attempts", "scratch", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            check_format(self.home)
        except OSError as error:
            what = f"cannot create folders in {error.filename}: {error.strerror}"
            raise UserError(what, fix=f"correct RAYPATH_HOME or {SHARED}") from None
        return self

    def record(self, key: str) -> Record | None:
        """Return the record of a step, None when it is not committed or its files are missing."""
        try:
            data = (self.root / "records" / f"{key}.json").read_bytes()
            reject_sealed(data, str(self.root))
            found = Record.model_validate_json(data)
        except (OSError, ValidationError):
            return None
        found = found.model_copy(update={"artifact": placed(found.artifact, self.root)})
        return found if Path(found.artifact["uri"]).is_dir() else None

    def local(self, artifact: A, by_shard: bool = False) -> A:
        """The artifact and its parts with their files on this machine. Raises StoreError when they are lost.

        by_shard: shards of datasets may remain in object storage until they are read.
        """
        here = self._present(artifact.uri, by_shard)
        # Parts that lie inside are here by now.
        parts = {name: self.local(part, by_shard) for name, part in artifact.nested()}
        return artifact.finalized(here, artifact.digest, **parts)

    def shard_storage(self) -> ShardStorage | None:
        """Return the object storage to which tasks upload shards; None if machines share a folder."""
        return None

    def _present(self, uri: str, by_shard: bool = False) -> str:
        """Return the local folder of a URI. Raises StoreError when it is missing."""
        here = _here(uri, self.root)
        if here is not None and not here.is_dir():
            raise StoreError(f"{here} is missing", fix="run the same command again, which recomputes it")
        return str(here or uri)

    def forget(self, key: str) -> None:
        """Remove a step's record and scratch folder, so that it runs from its beginning."""
        (self.root / "records" / f"{key}.json").unlink(missing_ok=True)
        shutil.rmtree(self.scratch(key), ignore_errors=True)

    def attempt(self, key: str) -> Path:
        """Create a private folder for one attempt; earlier ones of the same step are removed."""
        for old in (self.root / "attempts").glob(f"{key}-*"):
            shutil.rmtree(old, ignore_errors=True)
        folder = self.root / "attempts" / f"{key}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def scratch(self, key: str) -> Path:
        """Return the folder that all attempts of one step share."""
        return self.root / "scratch" / key

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the lock of a step; it is released when the process ends."""
        with locked(self.root / "locks" / key):
            yield

    def commit(self, record: Record, artifact: A, attempt: Path) -> A:
        """Move an attempt to its content address, then write the record. Returns the artifact with its final URI.

        Raises StoreError when the artifact names files that do not exist or the disk is full.
        """
        try:
            files = hash_files(attempt)
            listed = frozenset(listed_shards(attempt))
            name = _finalize(artifact, files, listed, attempt, attempt).digest
            final = self._final(attempt, name)
            final_artifact = _finalize(artifact, files, listed, attempt, final)
            _move(attempt, final)
            done = record.model_copy(update={"artifact": unplaced(final_artifact.model_dump(mode="json"))})
            kept = self._publish(done, name, files)
        except OSError as error:
            raise StoreError(
                f"cannot commit to {self.root}: {error.strerror}", fix="free disk space, then run again"
            ) from None
        shutil.rmtree(self.scratch(record.key), ignore_errors=True)
        # Another machine may have committed first, with another result.
        return final_artifact if kept is done else type(artifact).model_validate_json(json.dumps(kept.artifact))

    def _final(self, attempt: Path, name: str) -> Path:
        """Return the folder of a committed artifact."""
        return self.root / "artifacts" / name

    def _publish(self, record: Record, name: str, files: dict[str, str]) -> Record:
        """Write the record of the content `name`; returns the record that is valid, which may be another machine's."""
        write_atomically(self.root / "records" / f"{record.key}.json", record.model_dump_json(indent=1))
        return record

    @property
    def place(self) -> Path:
        """Folder with the stored form of artifacts and records, which is not theirs in memory if they are encrypted."""
        return self.root

    def read_stored(self, path: Path) -> bytes:
        """Return the plaintext of a file below `place`."""
        return path.read_bytes()

    @property
    def objects(self) -> Objects:
        """Stored form of artifacts and records, by their names in the store."""
        return FolderObjects(self.root)

    def close(self) -> None:
        """End the use of the store by this object."""

    def free_bytes(self) -> int:
        """Return the free bytes of the store's disk."""
        return shutil.disk_usage(self.root).free


def reject_sealed(data: bytes, place: str) -> None:
    """Raise UserError for a record that another home has encrypted."""
    if data.startswith(MAGIC):
        fix = f"copy the folder {FOLDER} of the home that encrypted it to this home"
        raise UserError(f"the store in {place} is encrypted, and this home has no key", fix=fix)


def place_of(uri: str) -> tuple[str, str] | None:
    """Split the URI of a committed artifact into content address and path below it; None for another URI."""
    found = _PLACE.search(uri)
    return (found[1], found[2] or "") if found else None


def _here(uri: str, root: Path) -> Path | None:
    place = place_of(uri)
    return root.joinpath("artifacts", *place) if place else None


def placed(artifact: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return an artifact's JSON with its URIs, nested ones included, below `root`."""
    return _moved(artifact, lambda uri: str(_here(uri, root) or uri))


def unplaced(artifact: dict[str, Any]) -> dict[str, Any]:
    """Return an artifact's JSON with URIs relative to the store: artifacts/<digest>/..."""
    return _moved(artifact, lambda uri: str(_here(uri, Path()) or uri))


def _moved(artifact: dict[str, Any], move: Callable[[str], str]) -> dict[str, Any]:
    inside = {k: _moved(v, move) if isinstance(v, dict) and "digest" in v else v for k, v in artifact.items()}
    return {**inside, "uri": move(artifact["uri"])} if "uri" in artifact else inside


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by relative name, and flush each file to disk.

    Shards that a manifest lists were hashed and flushed by the tasks that wrote them; uploaded ones are left out.
    """
    listed = listed_shards(folder)
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ORIGIN):
        name = path.relative_to(folder).as_posix()
        if name in listed:
            found[name] = listed[name]
            continue
        found[name] = file_digest(path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return found


def listed_shards(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that manifests below a folder list, by relative name.

    Raises StoreError for a file that is missing or has another size.
    """
    found = {}
    for path in sorted(folder.rglob(MANIFEST)):
        manifest = read_manifest(path.parent)
        for shard in manifest.shards if manifest else ():
            file = path.with_name(shard.name)
            if read_origin(path.parent) is None and (not file.is_file() or file.stat().st_size != shard.bytes):
                raise StoreError(f"{shard.name} is not as its manifest says", fix="run the same command again")
            found[file.relative_to(folder).as_posix()] = shard.sha256
    return found


def _finalize(artifact: A, files: dict[str, str], listed: frozenset[str], attempt: Path, final: Path) -> A:
    """Return the artifact with final URIs and digests; nested artifacts committed before keep theirs."""
    if artifact.digest:
        return artifact
    if not (attempt / artifact.uri).is_dir():
        raise StoreError(f"the step returned {artifact.uri!r}, which it did not write", fix="write below ctx.out")
    parts = {name: _finalize(part, files, listed, attempt, final) for name, part in artifact.nested()}
    prefix = f"{artifact.uri}/" if artifact.uri else ""
    # Files that a manifest lists are covered by the digest of the manifest.
    inside = {name: digest for name, digest in files.items() if name.startswith(prefix) and name not in listed}
    facts = [type(artifact).__name__, artifact.facts(), {k: p.digest for k, p in parts.items()}, inside]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return artifact.finalized(str(final / artifact.uri), digest, **parts)


def _move(attempt: Path, final: Path) -> None:
    """Rename into place; the same content may exist already."""
    if not final.is_dir():
        try:
            os.rename(attempt, final)
        except OSError:
            if not final.is_dir():
                raise
    shutil.rmtree(attempt, ignore_errors=True)
