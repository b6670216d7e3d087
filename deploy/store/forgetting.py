"""Forget a subject: find its rows in the artifacts of a home, and remove these and all that was made of them.

Artifacts are named by their contents, so that rows are not cut out of them: the artifact goes, and the step runs again
on data without the subject. What was made of an artifact is found by the digests in the records of steps.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.errors import PlatformError, UserError
from raypath.components.core.files import write_atomically
from raypath.deploy.store.audit.records import folder_of
from raypath.deploy.store.retention import delete, digests_in
from raypath.deploy.store.store import Store

COLUMNS = ("id", "group")
"""Columns of data sets that name a subject: those of `read.id` and `read.group`."""
_INPUT = "input "


@dataclass(frozen=True)
class FoundRows:
    """Rows of a subject in a file of an artifact."""

    artifact: str
    """Content address."""
    file: str
    rows: int


@dataclass(frozen=True)
class StepRecord:
    """Part of the record of a step that shows what was made of what."""

    path: Path
    step: str
    folders: frozenset[str]
    """Content addresses of its artifact and of those in it."""
    digests: frozenset[str]
    """Digests of its artifact and of those in it."""
    inputs: frozenset[str]
    """Digests of its inputs."""
    version: tuple[str, int] | None
    """Registered version that it made."""


def find_rows(store: Store, subject: str, columns: Iterable[str] = COLUMNS) -> list[FoundRows]:
    """Return the files with rows whose column, one of these, has this value.

    Raises UserError for a store in a bucket, whose files are not here.
    """
    if "://" in store.address:
        fix = "run `raypath forget` with RAYPATH_STORE on a folder, or delete the artifacts in the bucket"
        raise UserError("rows in a bucket cannot be searched", fix=fix)
    wanted, found = list(columns), []
    for path in sorted((store.place / "artifacts").rglob("*.parquet")):
        rows = _rows(store, path, subject, wanted)
        if rows:
            parts = path.relative_to(store.place / "artifacts").parts
            found.append(FoundRows(parts[0], "/".join(parts[1:]), rows))
    return found


def _rows(store: Store, path: Path, subject: str, columns: list[str]) -> int:
    """Return the number of rows of a Parquet file that name a subject. Row groups are skipped by their statistics."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # An encrypted file is read in memory.
        sealed = store.place != store.root
        source: Any = pa.BufferReader(store.read_stored(path)) if sealed else path
        schema = pq.read_schema(source)
        filters = []
        for name in columns:
            if name in schema.names and (value := _value(subject, schema.field(name).type)) is not None:
                filters.append([(name, "==", value)])
        if not filters:
            return 0
        needed = [each[0][0] for each in filters]
        return int(pq.read_table(source, columns=needed, filters=filters, partitioning=None).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise PlatformError(
            f"{path} cannot be read ({type(error).__name__})", fix="run `raypath backup verify`, or remove it"
        ) from None


def _value(subject: str, kind: Any) -> Any:
    """Return the subject as a value of an Arrow type; None if it is none."""
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return subject
    if pa.types.is_integer(kind):
        with suppress(ValueError):
            return int(subject)
    return None


def read_records(store: Store) -> list[StepRecord]:
    """Return the records of all steps; unreadable ones are left out."""
    found = []
    for path in sorted((store.place / "records").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(store.read_stored(path))
            artifact, key_inputs = record["artifact"], record.get("key_inputs") or record.get("ingredients") or {}
            released = "alias" in artifact and "version" in artifact
            found.append(
                StepRecord(
                    path,
                    str(record["step"]),
                    frozenset(digests_in(artifact)),
                    frozenset(_own_digests(artifact)),
                    frozenset(value for name, value in key_inputs.items() if name.startswith(_INPUT)),
                    (str(artifact["name"]), int(artifact["version"])) if released else None,
                )
            )
    return found


def affected(records: Iterable[StepRecord], artifacts: Iterable[str]) -> list[StepRecord]:
    """Return the records of these artifacts, and of all that was made of them."""
    left, found = list(records), list[StepRecord]()
    folders, digests = set(artifacts), set[str]()
    while True:
        more = [each for each in left if each.folders & folders or each.inputs & digests]
        if not more:
            return found
        found += more
        left = [each for each in left if each not in more]
        for each in more:
            digests |= each.digests


def remove(store: Store, records: Iterable[StepRecord], artifacts: Iterable[str]) -> int:
    """Remove the folders of these records and artifacts that no other record names; returns their number.

    Artifacts with rows of the subject go last but for the records: until then, the same command finds everything again
    after an interruption.
    """
    doomed, rows = list(records), set(artifacts)
    gone = {each.path for each in doomed}
    kept = {name for each in read_records(store) if each.path not in gone for name in each.folders}
    names = ({name for each in doomed for name in each.folders} | rows) - kept
    folders = [store.place / "artifacts" / name for name in sorted(names, key=lambda name: (name in rows, name))]
    for folder in folders:
        # That of an encrypted artifact makes it complete.
        (store.place / "manifests" / f"{folder.name}.json").unlink(missing_ok=True)
        if folder.exists() and not delete(folder):
            raise PlatformError(f"{folder} cannot be removed", fix="check its owner, then run the same command again")
    for each in doomed:
        each.path.unlink(missing_ok=True)
    return len(folders)


def subject_hash(home: Path, subject: str) -> str:
    """Return a keyed hash of a subject, by which the audit log names it. The key is in the folder of the log."""
    file = folder_of(home) / "subjects.key"
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, secrets.token_hex(32))
    return hmac.digest(bytes.fromhex(file.read_text("ascii")), subject.encode(), "sha256").hex()


def _own_digests(artifact: Any) -> Iterator[str]:
    if isinstance(artifact, dict):
        if artifact.get("digest"):
            yield str(artifact["digest"])
        for value in artifact.values():
            yield from _own_digests(value)
