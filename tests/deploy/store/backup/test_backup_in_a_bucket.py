"""A backup in a bucket."""

from __future__ import annotations

from pathlib import Path

from raypath.deploy.store.backup import restore
from raypath.deploy.store.backup.create import create
from raypath.deploy.store.backup.encryption import MasterKey
from raypath.deploy.store.backup.repository import open_repository
from raypath.deploy.store.store import Store


def test_a_backup_in_a_bucket_is_restored(tmp_path: Path, address: str) -> None:
    home, key = tmp_path / "home", MasterKey(bytes(32))
    Store(home).open()
    (home / "records" / "k1.json").write_text("{}")
    repository = open_repository(address, key, create=True)
    create(home, repository)
    assert create(home, open_repository(address, key)).new_blocks == 0
    assert restore.verify(repository).problems == ()
    assert restore.prune(repository, keep=1) == (1, 0)
    restore.restore(open_repository(address, key), repository.find("latest"), tmp_path / "copy")
    assert (tmp_path / "copy" / "records" / "k1.json").read_text() == "{}"
