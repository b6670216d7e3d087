"""Writers of files that tasks call, called directly: what they write, resume from and raise."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raypath.components import Context
from raypath.components.core.errors import StoreError
from raypath.components.data.columns.schema import Columns
from raypath.components.data.file_shard import FileShard
from raypath.components.data.labels.classes import ClassCollector
from raypath.components.data.read_tasks import Part, PartWriter
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.streaming.manifest import WrittenShard, read_manifest
from raypath.components.data.streaming.parquet import parquet_files, scan
from raypath.components.data.streaming.row_files import dataset_files
from raypath.components.data.streaming.shard_storage import describe
from raypath.components.data.streaming.shard_tasks import Output, ShardWriter, _items, publish
from tests.components.data.streaming.number_files import SCHEMA, numbers_of, write_numbers

MakeContext = Callable[..., Context]


def _even(table: pa.Table) -> pa.Table:
    return table.append_column("even", pc.equal(pc.bit_wise_and(table["n"], 1), 0))


@pytest.mark.usefixtures("_small")
def test_the_items_of_an_output(tmp_path: Path) -> None:
    source = dataset_files(write_numbers(tmp_path, 65))
    items = list(_items("a", Output(source, SCHEMA)))
    assert [(item["output"], item["number"], item["first"], item["rows"]) for item in items] == [
        ("a", 0, 0, 30),
        ("a", 1, 30, 30),
        ("a", 2, 60, 5),
    ]
    assert {item["keep"] for item in items} == {b""}
    keep = np.arange(65) % 2 == 1
    chosen = list(_items("a", Output(source, SCHEMA, keep=keep)))
    assert [(item["number"], item["first"], item["rows"]) for item in chosen] == [(0, 1, 59), (1, 61, 3)]
    none = list(_items("a", Output(source, SCHEMA, keep=keep & False)))
    assert [(item["number"], item["first"], item["rows"], item["keep"]) for item in none] == [(0, 0, 0, b"")]
    [empty] = _items("a", Output(dataset_files(write_numbers(tmp_path / "none")), SCHEMA))
    assert (empty["first"], empty["rows"]) == (0, 0)


@pytest.mark.usefixtures("_small")
def test_a_writer_of_shards(tmp_path: Path, make_context: MakeContext) -> None:
    source = dataset_files(write_numbers(tmp_path / "source", 65))
    keep = np.arange(65) % 2 == 1
    outputs = {"all": Output(source, SCHEMA, _even, "even"), "odd": Output(source, SCHEMA, _even, keep=keep)}
    writer = ShardWriter({name: Output(each.source, each.schema, each.transform, each.counted)
                          for name, each in outputs.items()}, tmp_path / "staging")  # fmt: skip
    made: dict[str, list[WrittenShard]] = {"all": [], "odd": []}
    for name, output in outputs.items():
        (writer.staging / name).mkdir(parents=True)
        for item in _items(name, output):
            assert writer.finished(name, item["number"]) is None
            key, line = writer(item)
            assert key == name
            made[name].append(WrittenShard.model_validate_json(line))
            assert writer.finished(name, item["number"]) == made[name][-1]
    assert [(shard.name, shard.rows, shard.counted) for shard in made["all"]] == [
        ("00000.parquet", 30, 15),
        ("00001.parquet", 30, 15),
        ("00002.parquet", 5, 3),
    ]
    assert [(shard.name, shard.rows, shard.counted) for shard in made["odd"]] == [
        ("00000.parquet", 30, 0),
        ("00001.parquet", 2, 0),
    ]
    assert sorted(path.name for path in (writer.staging / "odd").iterdir()) == [
        "00000.json", "00000.parquet", "00001.json", "00001.parquet",
    ]  # fmt: skip
    assert made["all"][2] == describe(writer.staging / "all" / "00002.parquet", "00002.parquet", 5, 3)
    ctx = make_context("x")
    publish(ctx, made["odd"], writer.staging / "odd", ctx.out / "odd", prefix="new-")
    assert [path.name for path in parquet_files(ctx.out / "odd")] == ["new-00000.parquet", "new-00001.parquet"]
    assert list(chain(*numbers_of(scan(ctx.out / "odd")))) == list(range(1, 65, 2))
    publish(ctx, made["all"], writer.staging / "all", ctx.out / "all")
    listed = read_manifest(ctx.out / "all")
    assert listed is not None
    assert [(shard.name, shard.counted) for shard in listed.shards] == [(f"0000{n}.parquet", 0) for n in range(3)]
    whole = parquet_files(tmp_path / "source")
    assert [path.read_bytes() for path in parquet_files(ctx.out / "all")] == [path.read_bytes() for path in whole]
    (writer.staging / "all").mkdir(exist_ok=True)
    (writer.staging / "all" / "00002.parquet").write_bytes(b"other")
    assert writer.finished("all", 2) is None, "a file that was changed is written again"


def _full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _broken(*_: Any) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.usefixtures("_small")
def test_full_disks_of_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataset_files(write_numbers(tmp_path / "source", 5))
    shards = ShardWriter({"a": Output(source, SCHEMA)}, tmp_path / "staging")
    (tmp_path / "staging" / "a").mkdir(parents=True)
    parts = PartWriter([_file(tmp_path)], PART, lambda table, labels: table, None, tmp_path / "parts")
    for fails, kind in ((_full, StoreError), (_broken, OSError)):
        monkeypatch.setattr(os, "fsync", fails)
        for writer, folder in ((shards, "staging"), (parts, "parts")):
            item = {"output": "a", "number": 0, "first": 0, "rows": 5, "keep": b""}
            given = item if writer is shards else {"number": 0, "check": False}
            with pytest.raises(kind) as caught:
                writer(given)  # type: ignore[operator]
            if kind is StoreError:
                fix = "free disk space, then run the same command again"
                assert str(caught.value) == f"no free disk space in {tmp_path / folder}; {fix}"
            assert [path for path in (tmp_path / folder).rglob("*") if path.name.startswith(".")] == []


PART = pa.schema([("text", pa.string()), ("label", pa.string())])


def _file(folder: Path) -> FileShard:
    (folder / "a.csv").write_text("text,label\na,x\nb,\nc,y\n")
    columns = Columns(inputs=(_text(),), labels=("label",))
    return FileShard(DataFile(folder / "a.csv", "csv"), columns, drop=True)


def _text() -> Any:
    from raypath.components.core.columns import Column

    return Column(name="text")


def _complete(table: pa.Table, labels: Any) -> pa.Table:
    table = table.filter(pc.is_valid(table["text"]))
    labels.add(table)
    return table


def test_a_writer_of_parts(tmp_path: Path) -> None:
    labels = ClassCollector("label")
    writer = PartWriter([_file(tmp_path)] * 2, PART, _complete, labels, tmp_path / "parts")
    assert writer.finished(1) is None
    state, line = writer({"number": 1, "check": True})
    part = Part.model_validate_json(line)
    assert (state, part) == ("", Part(number=1, seen=3, rows=2, labels={"text": ["x", "y"]}))
    assert labels.state() == {}, "the collector of the step is not changed"
    assert writer.path(1) == tmp_path / "parts" / "00001"
    assert writer.finished(1) == part
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["00001", "00001.json"]
    files = writer.files([part])
    assert (files.rows, [table["text"].to_pylist() for table in files.read(0, 2)]) == (2, [["a", "c"]])
    writer({"number": 1, "check": False})
    assert writer.files([part]).rows == 2, "an earlier attempt's files are replaced"
    (tmp_path / "parts" / "00001.json").write_text("{")
    assert writer.finished(1) is None
    assert re.fullmatch(r'\{"number":1,"seen":3,"rows":2,"labels":\{"text":\["x","y"\]\},"files":\[\]\}', line)
