"""Steps made of the rows of a subject, by the digests in their records, and the removal of these from a store."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from raypath.components.core.errors import PlatformError
from raypath.components.core.files import write_atomically
from raypath.components.data.streaming.shard_cache import cached
from raypath.deploy.store import scratch_sync
from raypath.deploy.store.audit.records import folder_of
from raypath.deploy.store.forgetting.search import LISTED, SCRATCH, FoundRows, places_of, shard_of, shards_by_dataset
from raypath.deploy.store.lineage import artifact_digests
from raypath.deploy.store.object_store import SHARDS
from raypath.deploy.store.retention import delete, digests_in
from raypath.deploy.store.store import Store

_INPUT = "input "
_THREADS = 16


@dataclass(frozen=True)
class StepRecord:
    """Part of the record of a step that shows what was made of what."""

    name: str
    """Path in the store."""
    step: str
    folders: frozenset[str]
    """Content addresses of its artifact and of those in it."""
    digests: frozenset[str]
    """Digests of its artifact and of those in it."""
    inputs: frozenset[str]
    """Digests of its inputs."""
    version: tuple[str, int] | None
    """Registered version that it made."""


def read_records(store: Store) -> list[StepRecord]:
    """Return the records of all steps; unreadable ones are left out."""
    objects, found = store.objects, []
    names = sorted(name for name in objects.names("records") if name.endswith(".json"))
    with ThreadPoolExecutor(_THREADS) as pool:
        contents = list(pool.map(objects.get, names))
    for name, content in zip(names, contents, strict=True):
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(content[0] if content else b"")
            artifact, key_inputs = record["artifact"], record.get("key_inputs") or record.get("ingredients") or {}
            released = "alias" in artifact and "version" in artifact
            found.append(
                StepRecord(
                    name,
                    str(record["step"]),
                    frozenset(digests_in(artifact)),
                    frozenset(artifact_digests(artifact)),
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


def remove(store: Store, records: Iterable[StepRecord], rows: Iterable[FoundRows]) -> int:
    """Remove the artifacts of these records and rows that no other record names; returns their number.

    Shards go that no other dataset names, scratch folders with such rows, and this machine's copies of what is in a
    bucket. What has rows of the subject goes last but for the records: until then, the same command finds everything
    again after an interruption.
    """
    doomed, found = list(records), list(rows)
    gone, with_rows = {each.name for each in doomed}, {each.artifact for each in found}
    kept = {folder for each in read_records(store) if each.name not in gone for folder in each.folders}
    artifacts = ({folder for each in doomed for folder in each.folders} | with_rows) - kept - {""}
    datasets = shards_by_dataset(places_of(store))
    shards = {sha256 for sha256, users in datasets.items() if {artifact for artifact, _ in users} <= artifacts}
    alone = [each.file for each in found if not each.artifact]
    shards |= {shard_of(file) for file in alone if file.startswith(f"{SHARDS}/")}
    for name in sorted(artifacts, key=lambda name: (name in with_rows, name)):
        _remove_artifact(store, name)
    store.objects.delete([f"{SHARDS}/{sha256}" for sha256 in sorted(shards)])
    for sha256 in shards:
        cached(store.root / SHARDS, sha256).unlink(missing_ok=True)
    for key in {file.split("/")[1] for file in alone if file.startswith(f"{SCRATCH}/")}:
        scratch_sync.forget(store.objects, key)
        _delete_folder(store.scratch(key))
    store.objects.delete(sorted(gone))
    return len(artifacts)


def subject_hash(home: Path, subject: str) -> str:
    """Return a keyed hash of a subject, by which the audit log names it. The key is in the folder of the log."""
    file = folder_of(home) / "subjects.key"
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, secrets.token_hex(32))
    return hmac.digest(bytes.fromhex(file.read_text("ascii")), subject.encode(), "sha256").hex()


def _remove_artifact(store: Store, name: str) -> None:
    # The manifest of an artifact in a bucket, or of an encrypted one, makes it complete.
    store.objects.delete([f"manifests/{name}.json"])
    local = {
        store.root / "artifacts",
        store.root / LISTED,
        *([] if "://" in store.address else [store.place / "artifacts"]),
    }
    for folder in sorted(local):
        for copy in folder.glob(f"{name}*"):
            _delete_folder(copy)
    store.objects.delete(store.objects.names(f"artifacts/{name}"))


def _delete_folder(folder: Path) -> None:
    if folder.exists() and not delete(folder):
        raise PlatformError(f"{folder} cannot be removed", fix="check its owner, then run the same command again")
