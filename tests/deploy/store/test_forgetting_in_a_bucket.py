"""A subject is forgotten in a bucket: in shards, in copies on machines, in scratch, and under encryption."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.artifacts import Dataset
from raypath.components.encryption.master_keys import create_key
from raypath.components.encryption.vault import create_vault
from raypath.deploy.cli import main as cli
from raypath.deploy.store.audit.log import read
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.forgetting.search import FoundRows, find_rows
from raypath.deploy.store.object_store import ObjectStore
from raypath.deploy.store.scratch_sync import ScratchMirror
from raypath.deploy.store.store import SHARED, Store
from tests.components.small_files import use_small_files, write_source
from tests.deploy.store.splits import record_of
from tests.deploy.store.test_shard_storage import commit

ROW = "4000"
"""A row of the first file of `train`, and of no other split."""


def opened(home: Path, address: str) -> ObjectStore:
    store = open_store(home, address)
    assert isinstance(store, ObjectStore)
    return store


def write_rows(store: Store, key: str, subject: str) -> Dataset:
    attempt = store.attempt(key)
    pq.write_table(pa.table({"id": [subject, "somebody"], "text": ["a", "b"]}), attempt / "part-0.parquet")
    return store.commit(record_of(key), Dataset(uri="", rows=2), attempt)


def test_shards_and_copies_are_found_and_removed(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_small_files(monkeypatch)
    monkeypatch.setenv(SHARED, address)
    one, two = opened(tmp_path / "1", address), opened(tmp_path / "2", address)
    doomed = commit(one, write_source(tmp_path / "source"), "doomed")
    other = write_rows(one, "other", "u2")
    # The other machine has a whole copy and one whose shards stay in the bucket.
    two.local(doomed.train)
    two.local(doomed, by_shard=True)
    artifact = Path(doomed.uri).name
    [found] = find_rows(two, ROW, ["n"])
    assert (found.artifact, found.file.startswith("train/"), found.rows) == (artifact, True, 1)
    assert find_rows(two, "u1") == []
    shards = one.bucket.names("shards")
    assert len(shards) == len(list((one.root / "shards").glob("*.parquet"))) > 3

    monkeypatch.setenv("RAYPATH_HOME", str(one.home))
    assert cli.main(["forget", ROW, "--column", "n", "--yes"]) == 0
    assert "1 artifact removed" in capsys.readouterr().out
    assert find_rows(one, ROW, ["n"]) == []
    assert one.record("doomed") is None
    assert one.record("other") is not None
    names = [name for folder in ("artifacts", "manifests", "records") for name in one.bucket.names(folder)]
    assert not [name for name in names if artifact in name or "doomed" in name]
    assert one.bucket.names("shards") == [], "those without the row as well: they were of the same data set"
    assert not list((one.root / "shards").glob("*.parquet"))
    assert len([name for name in names if Path(other.uri).name in name]) == 2

    # The copies of the other machine are its own to remove.
    assert [(each.artifact, each.rows) for each in find_rows(two, ROW, ["n"])] == [(artifact, 1)]
    monkeypatch.setenv("RAYPATH_HOME", str(two.home))
    assert cli.main(["forget", ROW, "--column", "n", "--yes"]) == 0
    assert find_rows(two, ROW, ["n"]) == []
    assert not list(two.home.rglob("*.parquet"))
    for store in (one, two):
        [made] = read(store.home)
        assert (made.action, made.outcome, made.detail["artifacts"]) == ("subject.forget", "ok", [artifact[:16]])


def test_a_shard_of_another_data_set_stays(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are named by content, so that data sets share them."""
    use_small_files(monkeypatch)
    store = opened(tmp_path / "1", address)
    splits = commit(store, write_source(tmp_path / "source"), "splits")
    whole = Path(splits.train.uri)
    # The same files of `test`, alone in a data set of its own.
    attempt = store.attempt("alone")
    for name in ("_manifest.json", ".origin.json"):
        (attempt / name).write_bytes((whole.parent / "test" / name).read_bytes())
    kept = store.commit(record_of("alone"), Dataset(uri="", rows=splits.test.rows), attempt)
    monkeypatch.setenv(SHARED, address)
    monkeypatch.setenv("RAYPATH_HOME", str(store.home))
    assert cli.main(["forget", ROW, "--column", "n", "--yes"]) == 0
    assert len(store.bucket.names("shards")) == 1
    assert pq.read_table(opened(tmp_path / "2", address).local(kept).uri).num_rows == kept.rows


def test_what_an_interrupted_step_left_is_found(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path / "1", address)
    folder = store.scratch("cut")
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["u1", "u1"]}), folder / "rows.parquet")
    (folder / "step.json").write_text("{}")
    ScratchMirror(store.bucket, "cut", folder, lambda: True).copy()
    copied = find_rows(opened(tmp_path / "2", address), "u1")
    assert [(each.artifact, each.rows) for each in copied] == [("", 2)]
    assert find_rows(store, "u1") == [*copied, FoundRows("", "scratch/cut/rows.parquet", 2)]
    monkeypatch.setenv(SHARED, address)
    monkeypatch.setenv("RAYPATH_HOME", str(store.home))
    assert cli.main(["forget", "u1", "--yes"]) == 0
    assert store.bucket.names("scratch") == []
    assert not store.scratch("cut").exists()


def test_an_encrypted_bucket(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    Store(home).open()
    create_vault(home, create_key(tmp_path / "master.key"))
    store = opened(home, address)
    monkeypatch.setenv(SHARED, address)
    monkeypatch.setenv("RAYPATH_HOME", str(home))
    try:
        artifact, _ = (Path(write_rows(store, key, subject).uri).name for key, subject in (("a", "u1"), ("b", "u2")))
        assert find_rows(store, "u1") == [FoundRows(artifact, "part-0.parquet", 1)]
        assert find_rows(store, "somebody") != []
        assert cli.main(["forget", "u1", "--yes"]) == 0
        assert find_rows(store, "u1") == []
        assert len(store.bucket.names("records")) == 1
        assert not [name for name in store.bucket.names("artifacts") if artifact in name]
    finally:
        store.close()


def test_nothing_is_removed_unless_somebody_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script has to say so with --yes; a person is asked, and may do nothing."""
    store = Store(tmp_path / "home").open()
    write_rows(store, "a", "u1")
    monkeypatch.setenv("RAYPATH_HOME", str(store.home))
    with open(os.devnull) as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert cli.main(["forget", "u1"]) == 2
        assert cli.main(["encryption", "shred", "u1"]) == 2
        assert cli.main(["backup", "prune", str(tmp_path), "--keep", "1"]) == 2
    assert capsys.readouterr().err.count("add --yes; nothing was removed") == 3
    person, terminal = os.openpty()
    with open(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        for typed, status in (("", 2), ("n", 2), ("y", 0)):
            assert len(find_rows(store, "u1")) == 1
            os.write(person, f"{typed}\n".encode())
            assert cli.main(["forget", "u1"]) == status
    os.close(person)
    assert "Remove the rows of this subject, 1 step made of them? [y/N]" in capsys.readouterr().err
    assert find_rows(store, "u1") == []
