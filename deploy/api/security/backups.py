"""Backups of a home: create, list, verify, restore."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from raypath.deploy.api.project import home_folder, private_process
from raypath.deploy.api.results import Result
from raypath.deploy.store.audit.log import audited, record
from raypath.deploy.store.backup import create as creation
from raypath.deploy.store.backup import restore as restoration
from raypath.deploy.store.backup.encryption import read_key
from raypath.deploy.store.backup.repository import Repository, Snapshot, open_repository
from raypath.deploy.store.backup.sources import check_source

Progress = Callable[[int], None]
"""Called with the bytes of each file or block that is done."""


class SnapshotInfo(Result):
    """Snapshot of a home in a backup."""

    id: str
    created: datetime
    home: str
    """Path of the home, on the machine where it was."""
    version: str
    """Version of Raypath."""
    files: int
    bytes: int
    """Bytes of all files."""


class CreatedBackup(Result):
    """New snapshot, and what it added to the backup."""

    snapshot: SnapshotInfo
    new_blocks: int
    new_bytes: int
    """Bytes that were not stored before."""


class BackupCheck(Result):
    """Verification of a backup."""

    snapshots: int
    blocks: int
    problems: list[str]
    """Blocks that are missing or corrupt, and a file that needs each."""
    unused: int
    """Blocks that no snapshot uses; `raypath backup prune` deletes them."""


def create_backup(
    place: str, *, key: Path | None = None, home: str | Path | None = None, progress: Progress = lambda _: None
) -> CreatedBackup:
    """Store a snapshot of the home at a place; only what changed is stored again. Runs may continue meanwhile.

    Args:
        place: Folder or s3://BUCKET/PREFIX.
        key: File of the master key; default $RAYPATH_BACKUP_KEY.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.
        progress: Called with the bytes of each file that is done.

    Raises:
        UserError: No key, a key of another backup, a folder that is no home, or a place in it.
        StoreError: No space left.
    """
    folder = home_folder(home)
    check_source(folder, place)
    with private_process(), audited(folder, "backup.create", place) as detail:
        made = creation.create(folder, _open(place, key, create=True), progress)
        detail["snapshot"] = made.snapshot.id
    return CreatedBackup(snapshot=_info(made.snapshot), new_blocks=made.new_blocks, new_bytes=made.new_bytes)


def list_backups(place: str, *, key: Path | None = None) -> list[SnapshotInfo]:
    """Return the snapshots at a place, the oldest first. Raises UserError, DataError."""
    return [_info(each) for each in _open(place, key).snapshots()]


def find_backup(place: str, snapshot: str = "latest", *, key: Path | None = None) -> SnapshotInfo:
    """Return a snapshot by the beginning of its id, or the latest. Raises UserError, DataError."""
    return _info(_open(place, key).find(snapshot))


def restore_backup(
    place: str,
    snapshot: str = "latest",
    *,
    key: Path | None = None,
    home: str | Path | None = None,
    progress: Progress = lambda _: None,
) -> SnapshotInfo:
    """Restore a snapshot to a home that does not exist or is empty; every block is verified.

    Raises:
        UserError: A home that is not empty, no such snapshot, no key or a wrong one.
        DataError: A block that is missing or corrupt; the home is as before.
        StoreError: No space left.
    """
    folder = home_folder(home)
    with private_process():
        repository = _open(place, key)
        found = repository.find(snapshot)
        restoration.restore(repository, found, folder, progress)
        record(folder, "backup.restore", place, detail={"snapshot": found.id, "home": found.home})
    return _info(found)


def verify_backup(
    place: str, *, key: Path | None = None, home: str | Path | None = None, progress: Progress = lambda _: None
) -> BackupCheck:
    """Read and decrypt every block that a snapshot uses. Raises UserError, DataError for a corrupt snapshot.

    home: Home folder whose audit log gets the outcome, where it exists; default $RAYPATH_HOME, else .raypath here.
    """
    with audited(home_folder(home), "backup.verify", place) as detail:
        found = restoration.verify(_open(place, key), progress)
        detail["problems"] = len(found.problems)
    return BackupCheck(
        snapshots=found.snapshots, blocks=found.blocks, problems=list(found.problems), unused=found.unused
    )


def prune_backups(place: str, keep: int, *, key: Path | None = None, home: str | Path | None = None) -> tuple[int, int]:
    """Delete all but the last `keep` snapshots and what none uses; returns the numbers of snapshots and blocks."""
    with audited(home_folder(home), "backup.prune", place, {"keep": keep}):
        return restoration.prune(_open(place, key), keep)


def _open(place: str, key: Path | None, create: bool = False) -> Repository:
    return open_repository(place, read_key(key), create)


def _info(snapshot: Snapshot) -> SnapshotInfo:
    return SnapshotInfo(
        id=snapshot.id,
        created=snapshot.created,
        home=snapshot.home,
        version=snapshot.version,
        files=len(snapshot.files),
        bytes=snapshot.size,
    )
