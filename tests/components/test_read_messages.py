"""read: what it logs, the columns of its dataset, and files of several splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from raypath.components import Context
from raypath.components.read import ReadParams, read, shards_of
from tests.components.reading import Read

MakeContext = Callable[..., Context]


def test_what_read_logs(make_context: MakeContext, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    def messages(data: str, **settings: Any) -> list[str]:
        caplog.clear()
        (tmp_path / "a.csv").write_text(data)
        read.fn(make_context("read"), ReadParams(uri=str(tmp_path / "a.csv"), **settings))
        return list(caplog.messages)

    assert messages("text,label\nx,a\n,a\n", nulls="drop") == ["dropped 1 row without text or label"]
    assert messages("text,label\nx,a\n,a\ny,\n", nulls="drop") == ["dropped 2 rows without text or label"]
    assert messages("text,label\nx,a\ny,b\n", nulls="drop") == []
    assert messages("text,label\nx,a\ny,\n", kind="set") == ["1 row has no class: its set is empty"]
    assert messages("text,label\nx,\ny,\n", kind="set") == ["2 rows have no class: their set is empty"]


def test_progress_and_scratch_of_read(make_context: MakeContext, tmp_path: Any) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,a\n,a\ny,b\n")
    ctx = make_context("read", progress=tmp_path / "progress.json")
    (ctx.scratch / ".objects").mkdir()
    made = read.fn(ctx, ReadParams(uri=str(tmp_path / "a.csv"), nulls="drop"))
    assert '"done": 3, "total": 3, "message": "3 rows"' in (tmp_path / "progress.json").read_text()
    assert not (ctx.scratch / ".objects").exists(), "downloads are removed"
    assert (made.rows, made.source, made.presplit, made.label_kind) == (2, str(tmp_path / "a.csv"), False, "string")


def test_the_columns_of_a_dataset(tmp_path: Any, reading: Read) -> None:
    header, row = "a,b,y,g,i,t,w,s,u", "x,2,k,h,1,2026-01-01,1,p,3"
    (tmp_path / "a.csv").write_text(f"{header}\n{row}\n")
    data, rows = reading(
        tmp_path / "a.csv", inputs=("a", "b"), kinds={"b": "number", "u": "number"}, label="y", group="g", id="i",
        time="t", weight="w", slices=("s", "u"),
    )  # fmt: skip
    assert [(each.name, each.kind, each.role, each.stored) for each in data.columns] == [
        ("a", "text", "input", "input.a"), ("b", "number", "input", "input.b"), ("y", "category", "target", "label"),
        ("g", "category", "group", "group"), ("i", "category", "id", "id"), ("t", "time", "time", "time"),
        ("w", "number", "weight", "weight"), ("s", "category", "slice", "slices.s"),
        ("u", "number", "slice", "slices.u"),
    ]  # fmt: skip
    assert sorted(rows[0]) == sorted(each.stored for each in data.columns)


def test_files_of_several_splits(make_context: MakeContext, tmp_path: Any) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text(f"text,label,split\n{name},x,test\n")
    names = {name: str(tmp_path / f"{name}.csv") for name in "abc"}
    ctx = make_context("read")
    read.fn(ctx, ReadParams(uri=names["a"], valid=names["b"], test=names["c"]))
    table = pq.read_table(ctx.out)
    assert (table["text"].to_pylist(), table["split"].to_pylist()) == (["a", "b", "c"], ["train", "valid", "test"])
    ctx = make_context("read")
    read.fn(ctx, ReadParams(uri=names["a"], test=names["c"]))
    assert pq.read_table(ctx.out)["split"].to_pylist() == ["train", "test"]
    [shard] = shards_of(ctx, ReadParams(uri=names["a"], label="split"))
    assert (shard.has_split, shard.columns.split) == (False, ""), "a column has one role"
    [shard] = shards_of(ctx, ReadParams(uri=names["a"], split=None))
    assert not shard.has_split
    [shard] = shards_of(ctx, ReadParams(uri=names["a"], nulls="drop"))
    assert (shard.has_split, shard.drop, shard.numbered) == (True, True, False)
    [shard] = shards_of(ctx, ReadParams(uri=names["a"], nulls="drop", label=None))
    assert shard.numbered
    [shard] = shards_of(ctx, ReadParams(uri=names["a"], nulls="drop", label=None, id="label"))
    assert not shard.numbered
