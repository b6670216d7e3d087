"""Shards in a bucket: uploaded where they are written, fetched where they are read; a real server, a real proxy."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, Dataset, Params, component, workflow
from raypath.components.core.artifacts import Splits
from raypath.components.core.errors import StoreError
from raypath.components.data.streaming.parquet import TableWriter, scan, schema_of
from raypath.components.data.streaming.ray_tasks import Item
from raypath.components.data.streaming.row_files import dataset_files, row_files
from raypath.components.data.streaming.shard_files import shard_files
from raypath.components.data.streaming.shard_tasks import STAGING, Output, ShardWriter, _items, publish
from raypath.deploy.execution.runner import Runner
from raypath.deploy.execution.step import StepSpec, step_context
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import Store
from tests.components.small_files import ROWS, SCHEMA, use_small_files, write_source
from tests.deploy.execution.in_process import Here, Nobody
from tests.deploy.store.s3 import Proxy
from tests.deploy.store.splits import record_of


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_files(monkeypatch)


def context(store: Store, key: str) -> Context:
    spec = StepSpec(home=str(store.home), run="r", step="s", component="", key=key, key_inputs={}, arguments=[])
    return step_context(spec, store, store.attempt(key))


def write(ctx: Context, outputs: dict[str, Output]) -> None:
    """The work of the tasks and of the step, in this process."""
    writer = ShardWriter(outputs, ctx.scratch / STAGING, ctx.storage)
    for name, output in outputs.items():
        shards = []
        for item in _items(name, output):
            shards.append(writer.write(**item))
            writer.record(name, shards[-1])
        publish(ctx, shards, ctx.scratch / STAGING / name, ctx.out / name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def commit(store: Store, source: Path, key: str = "k") -> Splits:
    """Train has three files, valid and test one each."""
    ctx = context(store, key)
    kept = {"train": np.ones(ROWS, bool), "valid": np.arange(ROWS) < 100, "test": np.arange(ROWS) > 8_000}
    files = row_files(sorted(source.glob("*.parquet")))
    write(ctx, {name: Output(files, SCHEMA, keep=keep) for name, keep in kept.items()})
    made = {name: Dataset(uri=name, rows=int(keep.sum())) for name, keep in kept.items()}
    return store.commit(record_of(key), Splits(**made), ctx.out)


def fetched(proxy: Proxy) -> list[str]:
    """Names of the shards that were downloaded since the last call."""
    found = [path.rpartition("/")[2] for method, path in proxy.seen if method == "GET" and "/shards/" in path]
    proxy.seen.clear()
    return found


def test_a_step_that_reads_by_shard_fetches_those_that_it_reads(
    address: str, proxy: Proxy, tmp_path: Path, source: Path
) -> None:
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    done = commit(one, source)
    fetched(proxy)
    here = two.local(done, by_shard=True)
    assert fetched(proxy) == []
    assert not list((tmp_path / "2").rglob("*.parquet"))
    files = dataset_files(here.train.uri)
    assert (files.rows, files.portable) == (ROWS, True)
    rows = pa.concat_tables(pickle.loads(pickle.dumps(files)).read(4_000, 5))  # the end of the first file
    assert rows["n"].to_pylist() == list(range(4_000, 4_005))
    assert len(fetched(proxy)) == 1
    rows = pa.concat_tables(files.read(4_090, 10))
    assert rows["n"].to_pylist() == list(range(4_090, 4_100))
    assert len(fetched(proxy)) == 1, "the first file is here by now"
    assert schema_of(here.train.uri) == SCHEMA
    assert pa.concat_tables(scan(here.train.uri)).equals(pq.read_table(source))
    assert len(fetched(proxy)) == 1
    assert two.local(done, by_shard=True) == here
    assert proxy.seen == []
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "2" / "shards").glob("*.parquet"))


def test_other_steps_have_all_files(address: str, proxy: Proxy, tmp_path: Path, source: Path) -> None:
    """Also on the machine that wrote them, which has kept them, and for a split alone."""
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    done = commit(one, source)
    fetched(proxy)
    assert pq.read_table(one.local(done).train.uri).equals(pq.read_table(source))
    assert fetched(proxy) == []
    test = two.local(done.test)
    assert pq.read_table(test.uri)["n"].to_pylist() == list(range(8_001, ROWS))
    assert len(fetched(proxy)) == 1
    assert pq.read_table(two.local(done).train.uri).equals(pq.read_table(source))
    assert len(fetched(proxy)) == 4, "train has three files, valid one; test is here"
    assert two.local(done, by_shard=True).uri == two.local(done).uri


def test_digest_and_files_are_those_of_a_store_in_a_folder(
    address: str, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = commit(open_store(tmp_path / "1", address), source)
    local = commit(open_store(tmp_path / "2", ""), source)
    assert (remote.digest, remote.train.digest) == (local.digest, local.train.digest)
    complete = open_store(tmp_path / "3", address).local(remote)
    names = [sorted(str(p.relative_to(each.uri)) for p in Path(each.uri).rglob("*.*")) for each in (local, complete)]
    assert names[0] == names[1]


def test_an_attempt_on_another_machine_finds_what_was_uploaded(address: str, tmp_path: Path, source: Path) -> None:
    """The records of finished files are copied with the step's scratch folder."""
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    output = Output(row_files(sorted(source.glob("*.parquet"))), SCHEMA)
    items: list[Item] = list(_items("train", output))

    def interrupted() -> None:
        with one.lock("k"):
            ctx = context(one, "k")
            writer = ShardWriter({"train": output}, ctx.scratch / STAGING, ctx.storage)
            writer.record("train", writer.write(**items[1]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with two.lock("k"):
        ctx = context(two, "k")
        writer = ShardWriter({"train": output}, ctx.scratch / STAGING, ctx.storage)
        found = [writer.finished("train", number) for number in range(3)]
        assert [None if shard is None else shard.rows for shard in found] == [None, 4_096, None]


@pytest.mark.parametrize("fault", ["flip", "absent"])
def test_a_shard_that_is_corrupt_or_missing_is_made_again(
    address: str, proxy: Proxy, tmp_path: Path, source: Path, fault: str
) -> None:
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    done = commit(one, source)
    files = shard_files(two.local(done, by_shard=True).train.uri)
    assert files[1].written is not None
    bad = files[1].written.sha256
    proxy.fault = lambda method, path: fault if method == "GET" and path.endswith(bad) else None
    assert sum(map(len, files[0]())) == 4_096
    with pytest.raises(StoreError, match=r"shards/[0-9a-f]{64} is missing or corrupt; run the same command again"):
        list(files[1]())
    assert not list((tmp_path / "2" / "shards").glob(f"{bad}*"))
    proxy.fault = lambda method, path: None
    assert two.record("k") is None, "its step runs again"
    again = commit(two, source, "k")
    assert again.digest == done.digest
    three = open_store(tmp_path / "3", address)
    assert pq.read_table(three.local(again).train.uri).equals(pq.read_table(source))


class Nothing(Params):
    """No settings."""


class Flow(Params):
    """Made rows, counted twice."""

    make: Nothing = Nothing()
    count: Nothing = Nothing()
    seed: int = 0
    """Seed."""


@component(version=1)
def make(ctx: Context, params: Nothing) -> Dataset:
    with TableWriter(ctx.scratch / "source", SCHEMA) as writer:
        writer.write(pa.table({"text": ["x"] * ROWS, "n": range(ROWS)}, SCHEMA))
    write(ctx, {"": Output(row_files(sorted((ctx.scratch / "source").glob("*.parquet"))), SCHEMA)})
    return Dataset(rows=ROWS)


@component(version=1, by_shard=True)
def last_rows(ctx: Context, data: Dataset, params: Nothing) -> Dataset:
    rows = pa.concat_tables(dataset_files(data.uri).read(ROWS - 10, 10))
    (ctx.out / "rows.json").write_text(json.dumps(rows["n"].to_pylist()))
    return Dataset(rows=10)


@component(version=1)
def all_rows(ctx: Context, data: Dataset, before: Dataset, params: Nothing) -> Dataset:
    (ctx.out / "rows.json").write_text(json.dumps(pq.read_table(data.uri)["n"].to_pylist()))
    return Dataset(rows=ROWS)


@workflow
def flow(p: Flow) -> Dataset:
    data = make(p.make)
    return all_rows(data, last_rows(data, p.count), p.count)


def test_a_run_takes_what_each_step_needs(address: str, proxy: Proxy, tmp_path: Path) -> None:
    def run(home: str, seed: int) -> Dataset:
        made = Runner(flow.trace(Flow(seed=seed)), open_store(tmp_path / home, address), Here(), Nobody()).execute()
        assert isinstance(made, Dataset)
        return made

    made = run("1", 0)
    assert json.loads(Path(made.uri, "rows.json").read_text()) == list(range(ROWS))
    assert not (tmp_path / "1" / "listed" / "artifacts" / Path(made.uri).name).exists()
    fetched(proxy)
    run("2", 0)
    assert fetched(proxy) == []
