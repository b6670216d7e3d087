"""A large Parquet file is read by several tasks, each of which has some of its row groups."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError
from raypath.components.data.formats import parquet_reader
from raypath.components.data.formats.parquet_reader import divided
from raypath.components.data.sources.files import find
from raypath.components.data.streaming import parquet, stream
from raypath.components.read import ReadParams, read, shards_of

ROWS = 9_000
MakeContext = Callable[..., Context]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Nine row groups of unequal sizes; every 700th row has no text."""
    texts = [f"text {n} {'long ' * (n % 40)}" if n % 700 else "" for n in range(ROWS)]
    table = pa.table({"text": texts, "label": [("1.0", "1", "2")[n % 3] for n in range(ROWS)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1_000, compression="none")
    return tmp_path / "a.parquet"


def test_parts_have_all_row_groups_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [file] = find(str(path), logging.getLogger())
    assert divided(file) == [file], "it is small"
    monkeypatch.setattr(parquet_reader, "PART_BYTES", 200_000)
    parts = divided(file)
    groups = [part.groups for part in parts if part.groups]
    assert len(groups) == len(parts) >= 3
    assert [group.first for group in groups] == [0, *(group.end for group in groups[:-1])]
    assert [group.row for group in groups] == [1 + 1_000 * group.first for group in groups]
    assert groups[-1].end == 9
    assert all(part.size >= 200_000 for part in parts[:-1])
    assert sum(part.size for part in parts) < path.stat().st_size


@pytest.mark.parametrize("label", ["label", None])
def test_tasks_give_the_bytes_of_one_process(
    path: Path, make_context: MakeContext, ray_head: None, monkeypatch: pytest.MonkeyPatch, label: str | None
) -> None:
    """With the numbers of rows in the file, where rows are dropped and have no label."""
    params = ReadParams(uri=str(path), label=label, nulls="drop")
    monkeypatch.setattr(parquet, "FILE_ROWS", 4_096)
    wanted, ctx = make_context("read"), make_context("read")
    whole = read.fn(wanted, params)
    monkeypatch.setattr(parquet_reader, "PART_BYTES", 200_000)
    monkeypatch.setattr(stream, "INLINE_BYTES", 0)
    assert len(shards_of(make_context("read"), params)) >= 3
    assert read.fn(ctx, params) == whole
    contents = [{file.name: file.read_bytes() for file in each.out.glob("*.parquet")} for each in (wanted, ctx)]
    assert contents[0] == contents[1]
    assert whole.rows == ROWS - 13
    if label is None:
        assert pq.read_table(ctx.out)["row"].to_pylist()[-1] == ROWS


def test_an_error_names_the_row_of_the_file(
    path: Path, make_context: MakeContext, ray_head: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pq.read_table(path)
    texts = [text or "x" for text in table["text"].to_pylist()]
    texts[7_654] = " "
    pq.write_table(table.set_column(0, "text", pa.array(texts)), path, row_group_size=1_000, compression="none")
    monkeypatch.setattr(parquet_reader, "PART_BYTES", 200_000)
    monkeypatch.setattr(stream, "INLINE_BYTES", 0)
    with pytest.raises(DataError, match=r"a\.parquet: column text is empty in row 7655 "):
        read.fn(make_context("read"), ReadParams(uri=str(path)))
