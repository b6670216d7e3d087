"""The store: content addresses, records written last, nothing half-written."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from raypath.components.core.artifacts import Dataset, Model, Report, Splits
from raypath.components.core.errors import StoreError
from raypath.components.core.files import locked
from raypath.components.data.streaming.manifest import Manifest, WrittenShard
from raypath.deploy.store.store import Record, Store, hash_files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home").open()


def _record(key: str) -> Record:
    return Record(key=key, step="s", component="m:f", key_inputs={}, artifact={}, started=0.0, seconds=1.0)


def _splits(store: Store, key: str, text: str = "x") -> Path:
    attempt = store.attempt(key)
    for part in ("train", "valid", "test"):
        (attempt / part).mkdir()
        (attempt / part / "a.txt").write_text(f"{part} {text}")
    return attempt


SPLITS = Splits(
    train=Dataset(uri="train", rows=1), valid=Dataset(uri="valid", rows=1), test=Dataset(uri="test", rows=1)
)


def test_a_commit_gives_addresses_and_digests_to_all_parts(store: Store) -> None:
    done = store.commit(_record("k"), SPLITS, _splits(store, "k"))
    assert Path(done.train.uri, "a.txt").read_text() == "train x"
    assert len({done.digest, done.train.digest, done.valid.digest, done.test.digest}) == 4
    record = store.record("k")
    assert record is not None
    assert Splits.model_validate_json(json.dumps(record.artifact)) == done


def test_the_same_content_has_the_same_address_whatever_the_key(store: Store) -> None:
    one = store.commit(_record("k1"), SPLITS, _splits(store, "k1"))
    two = store.commit(_record("k2"), SPLITS, _splits(store, "k2"))
    other = store.commit(_record("k3"), SPLITS, _splits(store, "k3", "y"))
    assert one == two
    assert other.digest != one.digest


def test_facts_count_as_content(store: Store) -> None:
    attempt = store.attempt("k")
    one = store.commit(_record("k"), Dataset(rows=1), attempt)
    two = store.commit(_record("k2"), Dataset(rows=2), store.attempt("k2"))
    assert one.digest != two.digest


def test_without_its_record_a_step_is_not_done(store: Store) -> None:
    _splits(store, "k")
    assert store.record("k") is None
    store.commit(_record("k"), SPLITS, _splits(store, "k"))
    store.forget("k")
    assert store.record("k") is None


def test_a_damaged_record_or_a_lost_artifact_means_not_done(store: Store) -> None:
    done = store.commit(_record("k"), SPLITS, _splits(store, "k"))
    path = store.home / "records" / "k.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert store.record("k") is None
    path.write_text(whole)
    Path(done.uri).rename(store.home / "elsewhere")
    assert store.record("k") is None


def test_a_new_attempt_throws_the_old_one_away_and_scratch_stays_until_the_commit(store: Store) -> None:
    first = store.attempt("k")
    store.scratch("k").mkdir()
    second = store.attempt("k")
    assert not first.exists()
    assert store.scratch("k").exists()
    store.commit(_record("k"), Dataset(rows=1), second)
    assert not store.scratch("k").exists()
    assert not second.exists()


def test_what_was_not_written_cannot_be_committed(store: Store) -> None:
    with pytest.raises(StoreError, match="did not write"):
        store.commit(_record("k"), Dataset(uri="nowhere", rows=1), store.attempt("k"))
    assert store.record("k") is None


def test_files_are_the_owners_own(store: Store) -> None:
    store.commit(_record("k"), SPLITS, _splits(store, "k"))
    assert (store.home / "records" / "k.json").stat().st_mode & 0o077 == 0
    assert (store.home / "artifacts").stat().st_mode & 0o077 == 0


def test_files_are_on_the_disk_before_the_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, flushed, fsync = _splits(store, "k"), [], os.fsync

    def flush(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").resolve())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flush)
    store.commit(_record("k"), SPLITS, attempt)
    assert flushed[:3] == [attempt / part / "a.txt" for part in ("test", "train", "valid")]
    assert flushed[3].name.startswith(".k.json.")


def test_a_part_that_was_committed_before_keeps_its_address(store: Store) -> None:
    splits = store.commit(_record("k"), SPLITS, _splits(store, "k"))
    attempt = store.attempt("m")
    (attempt / "model").mkdir()
    model = Model(uri="model", task="t", base="b", max_length=8)
    report = store.commit(_record("m"), Report(model=model, data=splits.test, metrics={}), attempt)
    assert report.data == splits.test
    assert Path(report.model.uri).is_dir()
    assert report.model.uri.startswith(report.uri)


def test_a_part_covers_its_own_files_alone(store: Store) -> None:
    def committed(key: str, **texts: str) -> Splits:
        attempt = store.attempt(key)
        for part in ("train", "train-2", "test"):
            (attempt / part).mkdir()
            (attempt / part / "a.txt").write_text(texts.get(part.replace("-", ""), part))
        held = (Dataset(uri=part, rows=1) for part in ("train", "train-2", "test"))
        return store.commit(_record(key), Splits(**dict(zip(("train", "valid", "test"), held, strict=True))), attempt)

    one, two = committed("k1"), committed("k2", train2="other")
    assert one.train.digest == two.train.digest
    assert one.valid.digest != two.valid.digest
    assert one.digest != two.digest


def test_a_step_is_run_by_one_at_a_time(store: Store) -> None:
    with store.lock("k"), locked(store.root / "locks" / "k", fcntl.LOCK_EX | fcntl.LOCK_NB) as second:
        assert not second
    with locked(store.root / "locks" / "k", fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
        assert free


def _sharded(store: Store, key: str, text: str, digest: str) -> Path:
    attempt = store.attempt(key)
    (attempt / "train").mkdir()
    (attempt / "train" / "00000.parquet").write_text(text)
    shard = WrittenShard(name="00000.parquet", rows=1, bytes=len("rows"), sha256=digest)
    Manifest(shards=(shard,)).write(attempt / "train")
    for part in ("valid", "test"):
        (attempt / part).mkdir()
    return attempt


def test_the_digest_of_shards_is_that_of_their_manifest(store: Store) -> None:
    """Their own digests are taken from it: no process reads them again."""
    one = store.commit(_record("k1"), SPLITS, _sharded(store, "k1", "rows", "0" * 64))
    assert hash_files(Path(one.uri))["train/00000.parquet"] == "0" * 64
    same = store.commit(_record("k2"), SPLITS, _sharded(store, "k2", "ROWS", "0" * 64))
    other = store.commit(_record("k3"), SPLITS, _sharded(store, "k3", "rows", "1" * 64))
    assert (same.digest, same.train.digest) == (one.digest, one.train.digest)
    assert other.train.digest != one.train.digest
    assert other.valid.digest == one.valid.digest


def test_a_shard_that_is_not_as_its_manifest_says(store: Store) -> None:
    for text in ("half a row", None):
        attempt = _sharded(store, "k", text or "", "0" * 64)
        if text is None:
            (attempt / "train" / "00000.parquet").unlink()
        with pytest.raises(StoreError, match=r"00000\.parquet is not as its manifest says"):
            store.commit(_record("k"), SPLITS, attempt)
