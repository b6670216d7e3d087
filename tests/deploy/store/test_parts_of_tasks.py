"""What tasks on nodes that share only a bucket pass to their step: parts of `read`, `inspect` and `predict`."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, Dataset
from raypath.components.data import read_tasks
from raypath.components.data.streaming import shard_tasks, stream
from raypath.components.data.streaming.manifest import WrittenShard, read_manifest
from raypath.components.data.streaming.ray_tasks import Item
from raypath.components.data.streaming.row_files import row_files
from raypath.components.data.streaming.shard_storage import bucket_of
from raypath.components.inference.batch.chunks import Chunk, TextRows, on_any_node
from raypath.components.inference.batch.results import Results
from raypath.components.inspection.collection.collector import collect
from raypath.components.inspection.collection.column_files import TYPES
from raypath.components.inspection.collection.tasks import PartCollector, PartSummary, join
from raypath.components.inspection.rows import Part
from raypath.components.read import ReadParams, read
from raypath.components.read import shards_of as find_shards
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import Store
from tests.components.small_files import use_small_files
from tests.deploy.store.splits import record_of
from tests.deploy.store.test_shard_storage import context

FILES, ROWS = 3, 5_000
Call = Callable[[Item], tuple[str, str]]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three files, of which each has more rows than a file of the dataset; labels that are normalized at the end."""
    (tmp_path / "rows").mkdir()
    for number in range(FILES):
        lines = (f"text {number} {n},{n % 3}{'.0' if n % 2 else ''}\n" for n in range(ROWS))
        (tmp_path / "rows" / f"{number}.csv").write_text("text,label\n" + "".join(lines))
    return tmp_path / "rows"


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Tasks run in this process. Those that may run anywhere are run as on another machine: with its own folders."""
    ran: list[tuple[str, int]] = []

    def run(call: Any, items: list[Item], ctx: Context, anywhere: bool = False) -> Iterator[tuple[str, str]]:
        there = tmp_path / "there"
        if anywhere and isinstance(call, read_tasks.PartWriter):
            call = replace(call, folder=there / "parts", storage=replace(call.storage, cache=there / "shards"))
        if anywhere and isinstance(call, shard_tasks.ShardWriter):
            call = replace(call, staging=there / "staging", storage=replace(call.storage, cache=there / "shards"))
        for item in reversed(items):
            ran.append(("anywhere" if anywhere else "here", item["number"]))
            yield call(item)

    for module in (read_tasks, shard_tasks):
        monkeypatch.setattr(module, "run_tasks", run)
    monkeypatch.setattr(stream, "INLINE_BYTES", 0)
    use_small_files(monkeypatch)
    return ran


def run(store: Store, rows: Path | str, node: str, key: str = "k") -> Dataset:
    """Run `read` and commit it."""
    with store.lock(key):
        ctx = replace(context(store, key), key=key, node=node)
        made = read.fn(ctx, ReadParams(uri=str(rows)))
        return store.commit(record_of(key), made, ctx.out)


def test_files_that_other_nodes_read_give_the_same_digest(
    address: str, rows: Path, nodes: list[tuple[str, int]], tmp_path: Path
) -> None:
    local = run(open_store(tmp_path / "1", ""), rows, "")
    assert {where for where, _ in nodes} == {"here"}
    nodes.clear()
    store = open_store(tmp_path / "2", address)
    remote = run(store, rows, "node")
    assert [where for where, _ in nodes] == ["anywhere"] * (FILES + 4), "three parts, and four files of the dataset"
    assert remote.digest == local.digest
    assert remote.rows == FILES * ROWS
    assert pq.read_table(open_store(tmp_path / "3", address).local(remote).uri).equals(pq.read_table(local.uri))
    assert bucket_of(address).names("scratch") == [], "parts are deleted with the commit"
    assert not (tmp_path / "2" / "scratch" / "k").exists()


def test_a_file_that_another_node_does_not_have_is_read_by_the_steps_node(
    address: str, rows: Path, nodes: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = run(open_store(tmp_path / "1", ""), rows, "")
    nodes.clear()
    here = read_tasks.FileShard.is_here
    monkeypatch.setattr(read_tasks.FileShard, "is_here", lambda shard: shard.file.path.name != "1.csv" and here(shard))
    assert run(open_store(tmp_path / "2", address), rows, "node").digest == wanted.digest
    assert nodes[: FILES + 1] == [("anywhere", 2), ("anywhere", 1), ("anywhere", 0), ("here", 1)]


@pytest.mark.parametrize("changed", [False, True])
def test_objects_that_other_nodes_fetch_give_the_same_digest(
    address: str,
    rows: Path,
    nodes: list[tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: bool,
) -> None:
    """Compressed, since the name has to tell it. An object that was replaced meanwhile is read from the first copy."""
    (tmp_path / "packed").mkdir()
    bucket = bucket_of(f"{address}/data")
    for path in sorted(rows.glob("*.csv")):
        packed = tmp_path / "packed" / f"{path.name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        bucket.upload(packed, packed.name)
    wanted = run(open_store(tmp_path / "1", ""), tmp_path / "packed", "")
    nodes.clear()
    monkeypatch.setattr(read_tasks.FileShard, "is_here", lambda shard: False)
    write = read_tasks.run_tasks

    def replaced(*args: Any, **more: Any) -> Iterator[tuple[str, str]]:
        if changed:
            bucket.put("1.csv.gz", b"other")
        yield from write(*args, **more)

    monkeypatch.setattr(read_tasks, "run_tasks", replaced)
    made = run(open_store(tmp_path / "2", address), f"{address}/data", "node")
    assert made.rows == wanted.rows
    assert shards_of(made) == shards_of(wanted)
    assert nodes.count(("here", 1)) == changed
    assert nodes.count(("anywhere", 1)) == 2, "a part, and a file of the dataset"
    assert len(list((tmp_path / "there" / "shards").glob("*.parquet"))) >= FILES
    assert not list((tmp_path / "there").rglob(".object-*"))


def shards_of(data: Dataset) -> tuple[WrittenShard, ...]:
    manifest = read_manifest(Path(data.uri))
    assert manifest is not None
    return manifest.shards


def test_a_file_with_another_time_is_another_file(rows: Path, tmp_path: Path, make_context: Any) -> None:
    shard = find_shards(make_context("read"), ReadParams(uri=str(rows)))[0]
    assert shard.portable
    assert shard.is_here()
    os.utime(rows / "0.csv", (1, 1))
    assert not shard.is_here()
    (rows / "0.csv").unlink()
    assert not shard.is_here()


def test_an_interrupted_read_resumes_on_another_machine(
    address: str, rows: Path, nodes: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = run(open_store(tmp_path / "1", ""), rows, "")
    nodes.clear()
    with monkeypatch.context() as patch:
        patch.setattr("raypath.components.read._check_count", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(open_store(tmp_path / "2", address), rows, "node")
    assert len(nodes) == FILES
    nodes.clear()
    assert run(open_store(tmp_path / "3", address), rows, "node").digest == wanted.digest
    assert len(nodes) == 4, "the parts are there"


def test_statistics_of_parts_come_by_the_bucket(address: str, tmp_path: Path) -> None:
    ctx = replace(context(open_store(tmp_path / "home", address), "k"), key="k", node="node")
    assert ctx.part_storage is not None
    table = pa.table({"text": [f"one two three {n % 70}" for n in range(300)], "label": ["a", "b", "c"] * 100})
    parts = [Part("rows", [table.slice(first, 100)], "train", first) for first in (0, 100, 200)]
    one = collect(parts, tmp_path / "one", keep_words=True, seed=5)
    (tmp_path / "there").mkdir()
    there = PartCollector(parts, [1, 1, 1], tmp_path / "there", None, True, 5, ctx.part_storage)
    made = [PartSummary.model_validate_json(there({"number": number})[1]) for number in range(3)]
    assert list((tmp_path / "there").iterdir()) == []
    (tmp_path / "two").mkdir()
    two = join(replace(there, folder=tmp_path / "two"), made)
    for name in TYPES:
        assert np.array_equal(one.files.read(name), two.files.read(name)), name
    assert np.array_equal(one.sample.words, two.sample.words)
    assert one.classes == two.classes


def test_results_of_chunks_come_by_the_bucket_and_are_found_again(address: str, tmp_path: Path) -> None:
    ctx = replace(context(open_store(tmp_path / "home", address), "k"), key="k", node="node")
    assert ctx.part_storage is not None
    pq.write_table(pa.table({"text": [f"t{n}" for n in range(30)]}), tmp_path / "rows.parquet")
    local = TextRows(row_files([tmp_path / "rows.parquet"], ("text",)))
    rows = on_any_node(local, ctx.part_storage, ctx.scratch / ".staged")
    assert (rows.files.portable, rows.columns, rows.rows) == (True, ("text",), 30)
    (tmp_path / "rows.parquet").rename(tmp_path / "elsewhere.parquet")
    here = Results(ctx.scratch / "chunks", ctx.part_storage)
    there = Results(tmp_path / "there", replace(ctx.part_storage, cache=tmp_path / "shards"))
    for number in (1, 0, 2):
        here.record(number, there.write(Chunk(number, number * 10, 10), rows.read(Chunk(number, number * 10, 10))))
    assert here.finished() == {0, 1, 2}
    found = pa.concat_tables(here.files().read(0, 30))
    assert found["row"].to_pylist() == list(range(1, 31))
    assert found["text"].to_pylist() == [f"t{n}" for n in range(30)]
    second = here.files().files[1][0].written
    assert second is not None
    bucket_of(address).delete([f"{ctx.part_storage.folder}/{second.sha256}"])
    assert here.finished() == {0, 2}
