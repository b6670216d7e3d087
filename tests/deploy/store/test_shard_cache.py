"""Shards on a machine: those used longest ago are removed, never those in use; a training reads on without them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Dataset
from raypath.components.core.context import ShardStorage
from raypath.components.core.errors import ParamsError
from raypath.components.core.files import file_digest
from raypath.components.data.splits.overlap import drop_overlap
from raypath.components.data.streaming import parquet
from raypath.components.data.streaming.manifest import Manifest
from raypath.components.data.streaming.parquet import TableWriter, parquet_files
from raypath.components.data.streaming.shard_cache import LIMIT, make_room, parse_limit, usage
from raypath.components.data.streaming.shard_files import ShardFile, shard_files
from raypath.components.data.streaming.shard_storage import Origin, bucket_of, describe, fetched, upload
from raypath.components.inference.batch.scoring import batches
from raypath.components.training.batches.epoch_plan import EpochPlan
from raypath.components.training.batches.token_dataset import StreamedTokens, load_token_dataset
from raypath.deploy.api.services import status
from raypath.deploy.cli.status import shard_cache_line
from raypath.deploy.store.factory import open_store
from tests.deploy.store.s3 import Proxy

SCHEMA = pa.schema({"text": pa.string(), "input_ids": pa.list_(pa.int32()), "target": pa.int32()})
ROWS, FILE_ROWS, GROUPS = 12_288, 4_096, 6


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of two row groups."""
    monkeypatch.setattr(parquet, "FILE_ROWS", FILE_ROWS)
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 30_000, n).tolist() for n in rng.integers(3, 40, ROWS)]
    table = pa.table({"text": [str(n) for n in range(ROWS)], "input_ids": ids, "target": rng.integers(0, 3, ROWS)})
    with TableWriter(tmp_path / "rows", SCHEMA) as writer:
        writer.write(table)
    return tmp_path / "rows"


@pytest.fixture
def stored(rows: Path, address: str, tmp_path: Path) -> Path:
    """The same rows in a bucket: a folder with their manifest, and an empty cache."""
    storage = ShardStorage(address, tmp_path / "cache")
    shards = []
    for path in parquet_files(rows):
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        shards.append(describe(copy, path.name, FILE_ROWS))
        upload(storage, copy, shards[-1])
    for path in storage.cache.glob("*.parquet"):
        path.unlink()
    (tmp_path / "listed").mkdir()
    Manifest(shards=tuple(shards)).write(tmp_path / "listed")
    Origin.of(storage).write(tmp_path / "listed")
    return tmp_path / "listed"


def names(cache: Path) -> set[str]:
    return {path.stem for path in cache.glob("*.parquet")}


def digests(shards: list[ShardFile]) -> list[str]:
    return [shard.written.sha256 for shard in shards if shard.written]


def test_the_shard_used_longest_ago_is_removed_and_one_in_use_is_not(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, shards = tmp_path / "cache", shard_files(stored)
    one, two, three = digests(shards)
    size = max(shard.bytes for shard in shards)
    monkeypatch.setenv(LIMIT, str(int(2.5 * size)))
    for shard in shards[:2]:
        list(shard())
    assert names(cache) == {one, two}
    os.utime(cache / f"{two}.parquet", (1, 1))
    list(shards[2]())
    assert names(cache) == {one, three}
    os.utime(cache / f"{one}.parquet", (1, 1))
    with shards[0].open() as file:
        os.utime(cache / f"{one}.parquet", (1, 1))  # reading it made it the one used last
        list(shards[1]())
        assert names(cache) == {one, two}, "the first is in use"
        monkeypatch.setenv(LIMIT, "1")
        make_room(cache, 0)
        assert names(cache) == {one}
        assert file.read_row_group(1).num_rows == 2_048
    make_room(cache, 0)
    assert names(cache) == set()
    found = usage(cache)
    assert found is not None
    assert (found.shards, found.bytes, found.limit, found.removed) == (0, 0, 1, 4)
    assert found.removed_bytes == sum(shards[n].bytes for n in (0, 1, 1, 2))
    assert usage(tmp_path / "none") is None


def test_a_shard_in_use_by_another_process_is_not_removed(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is on the file, whichever process has it."""
    shard = shard_files(stored)[0]
    assert shard.origin is not None
    assert shard.written is not None
    with fetched(shard.origin, shard.written) as path:
        monkeypatch.setenv(LIMIT, "1")
        if (child := os.fork()) == 0:
            make_room(path.parent, 0)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert path.is_file()
    make_room(path.parent, 0)
    assert not path.is_file()


def test_the_limit_is_half_of_what_the_disk_has_for_shards(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(shard_files(stored)[0]())
    monkeypatch.delenv(LIMIT, raising=False)
    found = usage(stored.with_name("cache"))
    assert found is not None
    disk = os.statvfs(stored)
    assert found.limit == pytest.approx((disk.f_bavail * disk.f_frsize + found.bytes) / 2, rel=0.05)
    assert [parse_limit(text) for text in ("", "512", "1.5Gi", " 2Ti ")] == [0, 512, 3 << 29, 2 << 40]
    with pytest.raises(ParamsError, match=f"{LIMIT} is '2 GB'; wanted a size; write it as in 500Mi"):
        parse_limit("2 GB")


def test_a_training_reads_the_same_batches_without_room_for_its_shards(
    stored: Path, rows: Path, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shard fits on the disk and half of the rows in memory: row groups are read by their range of bytes."""
    size = max(shard.bytes for shard in shard_files(stored))
    monkeypatch.setenv(LIMIT, str(size + 1_000))
    window = 100_000
    local, remote = load_token_dataset(rows, window=window), load_token_dataset(stored, window=window)
    assert isinstance(remote, StreamedTokens)
    assert isinstance(local, StreamedTokens)
    assert np.array_equal(remote.lengths, local.lengths)
    assert np.array_equal(remote.targets, local.targets)
    assert len(names(tmp_path / "cache")) == 1
    proxy.seen.clear()
    for epoch in (0, 1):
        plans = [list(EpochPlan(each, 2_000, seed=3, epoch=epoch)) for each in (local, remote)]
        assert all(np.array_equal(a, b) for a, b in zip(*plans, strict=True))
        for step in plans[0]:
            a, b = local.batch(step, 0), remote.batch(step, 0)
            assert all(np.array_equal(a[name], b[name]) for name in ("input_ids", "attention_mask", "targets"))
        assert len(names(tmp_path / "cache")) == 1
    gets = [path for method, path in proxy.seen if method == "GET" and "/shards/" in path]
    reads = remote.cache.reads
    assert reads < 3 * GROUPS, "each row group about once an epoch"
    assert len(gets) <= reads
    assert len(gets) >= GROUPS - 2


def test_a_range_that_is_not_as_it_was_is_taken_from_the_verified_shard(
    stored: Path, rows: Path, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, local = (load_token_dataset(folder, window=100_000) for folder in (stored, rows))
    assert isinstance(remote, StreamedTokens)
    for path in (tmp_path / "cache").glob("*.parquet"):
        path.unlink()
    spoiled: list[str] = []

    def first(method: str, path: str) -> str | None:
        if method != "GET" or spoiled:
            return None
        spoiled.append(path)
        return "flip"

    proxy.fault = first
    chosen = np.arange(100, 140)
    assert np.array_equal(remote.batch(chosen, 0)["input_ids"], local.batch(chosen, 0)["input_ids"])
    assert spoiled
    assert len(names(tmp_path / "cache")) == 1, "the whole shard was fetched"


def test_a_range_is_a_part_of_an_object(stored: Path, rows: Path) -> None:
    shard = shard_files(stored)[1]
    assert shard.origin is not None
    assert shard.written is not None
    data = (rows / shard.path.name).read_bytes()
    bucket = bucket_of(shard.origin.address)
    assert bucket.read_range(shard.origin.name(shard.written), 1_000, 77) == data[1_000:1_077]
    with pytest.raises(FileNotFoundError):
        bucket.read_range("shards/none", 0, 1)
    with shard.local() as path:
        assert file_digest(path) == shard.written.sha256
        assert re.fullmatch(r"[0-9a-f]{64}\.parquet", path.name)


def test_evaluation_and_pretraining_read_one_shard_after_the_other(
    stored: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, local = (Dataset(uri=str(folder), rows=ROWS) for folder in (stored, rows))
    monkeypatch.setenv(LIMIT, "1")
    found, wanted = (pa.Table.from_batches(batches(data, ["text", "target"])) for data in (remote, local))
    assert found.equals(wanted)
    assert len(names(tmp_path / "cache")) == 1
    kept = drop_overlap(remote, (local,), tmp_path / "kept")
    assert kept.rows == 0, "all rows are in both"
    few = tmp_path / "few"
    few.mkdir()
    pq.write_table(pq.read_table(rows).slice(5_000, 10), few / "00000.parquet")
    kept = drop_overlap(remote, (Dataset(uri=str(few), rows=10),), tmp_path / "most")
    assert kept.rows == ROWS - 10
    assert len(names(tmp_path / "cache")) == 1


def test_the_status_has_the_folder_and_what_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "shards"
    assert status(home=tmp_path).shard_cache is None
    cache.mkdir()
    for name in ("a", "b"):
        (cache / f"{name}.parquet").write_bytes(bytes(3 << 20))
    monkeypatch.setenv(LIMIT, "5Mi")
    make_room(cache, 0)
    found = status(home=tmp_path).shard_cache
    assert found is not None
    assert shard_cache_line(found) == f"shards         {cache}  1, 3 of 5 MiB; removed 1 (3 MiB)"


def test_a_limit_that_is_no_size_is_rejected_before_a_run(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "much")
    with pytest.raises(ParamsError, match=f"{LIMIT} is 'much'"):
        open_store(tmp_path / "home", address)
