"""Files of datasets without Ray: their names, bytes and manifests, ranges of rows, and writers called directly."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.data.streaming import parquet
from raypath.components.data.streaming.manifest import MANIFEST, Manifest, WrittenShard, read_manifest
from raypath.components.data.streaming.parquet import TableWriter, label_kind_of, parquet_files, scan, schema_of
from raypath.components.data.streaming.progress import ProgressReporter
from raypath.components.data.streaming.ray_errors import out_of_memory
from raypath.components.data.streaming.row_files import dataset_files, row_files
from raypath.components.data.streaming.shard_files import are_portable, shard_files
from raypath.components.data.streaming.shard_storage import Origin, describe, read_origin
from raypath.components.data.streaming.stream import INLINE_BYTES, is_small, stream_tables
from tests.components.data.streaming.number_files import SCHEMA, number_table, numbers_of, write_numbers

MakeContext = Callable[..., Context]


def test_sizes_of_files() -> None:
    assert (parquet.GROUP_ROWS, parquet.GROUP_BYTES, parquet.FILE_ROWS) == (2_048, 1 << 30, 65_536)
    assert INLINE_BYTES == 32 << 20


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("sizes", [(65,), (1,) * 65, (9, 2, 30, 24), (0, 65, 0)])
def test_row_groups_and_files_do_not_depend_on_batches(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    folder, whole = write_numbers(tmp_path / "a", *sizes), write_numbers(tmp_path / "b", 65)
    names = ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert [path.name for path in parquet_files(folder)] == names
    assert [path.read_bytes() for path in parquet_files(folder)] == [path.read_bytes() for path in parquet_files(whole)]
    assert [pq.read_metadata(path).num_row_groups for path in parquet_files(folder)] == [3, 3, 1]
    column = pq.read_metadata(folder / names[0]).row_group(0)
    assert [column.column(n).compression for n in range(2)] == ["ZSTD", "ZSTD"]
    assert ["RLE_DICTIONARY" in column.column(n).encodings for n in range(2)] == [False, True]
    assert numbers_of(scan(folder)) == [list(range(n, min(n + 10, 65))) for n in range(0, 65, 10)]
    assert [table.column_names for table in scan(folder, ["label"])] == [["label"]] * 7


@pytest.mark.usefixtures("_small")
def test_full_files_and_no_rows(tmp_path: Path) -> None:
    assert len(parquet_files(write_numbers(tmp_path / "a", 30))) == 1
    assert len(parquet_files(write_numbers(tmp_path / "b", 60))) == 2
    [empty] = parquet_files(write_numbers(tmp_path / "c"))
    assert (pq.read_metadata(empty).num_rows, schema_of(tmp_path / "c")) == (0, SCHEMA)
    writer = TableWriter(tmp_path / "e", SCHEMA)
    writer.write(number_table(0, 35))
    writer.__exit__(KeyError, KeyError("x"), None)
    assert writer.rows == 30, "an incomplete file ends, and the rest is not written"


def test_rows_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 3 << 30)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 4)
    with TableWriter(tmp_path, SCHEMA) as writer:
        writer.write(number_table(0, 4))
        monkeypatch.setattr(parquet, "GROUP_BYTES", 1)
        text = "2 rows from row 5 on have more than 0 GiB; divide long texts into several rows"
        with pytest.raises(DataError, match=f"^{text}$"):
            writer.write(number_table(4, 2))
        monkeypatch.setattr(parquet, "GROUP_BYTES", 3 << 30)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (None, LabelKind.NONE),
        (pa.string(), LabelKind.CLASS),
        (pa.list_(pa.string()), LabelKind.SET),
        (pa.list_(pa.float64()), LabelKind.NUMBER),
        (pa.list_(pa.float32()), LabelKind.NUMBER),
    ],
)
def test_kinds_of_labels(dtype: Any, kind: LabelKind) -> None:
    assert label_kind_of(pa.schema([("label", dtype)] if dtype else [])) is kind


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("first", "rows"),
    [(0, 65), (0, 1), (9, 2), (10, 10), (29, 2), (30, 30), (64, 1), (64, 9), (65, 5), (12, 40)],
)
def test_ranges_of_rows(tmp_path: Path, first: int, rows: int) -> None:
    files = dataset_files(write_numbers(tmp_path, 65))
    found = numbers_of(files.read(first, rows))
    assert list(chain(*found)) == list(range(65))[first : first + rows]
    assert all(found), "no empty table"
    assert all(numbers[0] // 10 == numbers[-1] // 10 for numbers in found), "a row group at a time"
    assert (files.rows, files.columns, files.portable) == (65, None, False)
    some = row_files(parquet_files(tmp_path), ["label"])
    assert (some.rows, some.columns) == (65, ("label",))
    assert [table.column_names for table in some.read(0, 1)] == [["label"]]


def test_manifests(tmp_path: Path) -> None:
    assert MANIFEST == "_manifest.json"
    assert read_manifest(tmp_path) is None
    made = Manifest(shards=(WrittenShard(name="a", rows=1, bytes=2, sha256="f"),))
    made.write(tmp_path)
    assert '"format": "raypath.shards/1"' in (tmp_path / MANIFEST).read_text()
    assert read_manifest(tmp_path) == made
    (tmp_path / MANIFEST).write_text((tmp_path / MANIFEST).read_text().replace("shards/1", "shards/2"))
    assert read_manifest(tmp_path) is None
    with pytest.raises(ValueError, match="frozen"):
        made.format = "x"  # type: ignore[assignment,misc]


@pytest.mark.usefixtures("_small")
def test_files_of_a_manifest(tmp_path: Path) -> None:
    folder = write_numbers(tmp_path, 35)
    plain = shard_files(folder)
    assert [(file.path.name, file.rows, file.written, file.origin, file.is_here) for file in plain] == [
        ("00000.parquet", 30, None, None, True),
        ("00001.parquet", 5, None, None, True),
    ]
    assert [file.bytes for file in plain] == [path.stat().st_size for path in parquet_files(folder)]
    assert not are_portable(plain)
    first, second = (describe(path, path.name, rows) for path, rows in zip(parquet_files(folder), (30, 5), strict=True))
    Manifest(shards=(second, first)).write(folder)
    listed = shard_files(folder)
    assert [(file.path.name, file.rows, file.bytes) for file in listed] == [
        ("00001.parquet", 5, second.bytes),
        ("00000.parquet", 30, first.bytes),
    ], "in the order of the manifest"
    assert listed[0].is_here
    assert not are_portable(listed)
    Origin(address="s3://b/f", cache=tmp_path / "cache", artifact="x").write(folder)
    assert read_origin(folder) == Origin(address="s3://b/f", cache=tmp_path / "cache", artifact="x", folder="shards")
    assert read_origin(tmp_path / "cache") is None
    stored = shard_files(folder)
    assert are_portable(stored)
    assert not stored[0].is_here
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{second.sha256}.parquet").touch()
    assert [file.is_here for file in stored] == [True, False]
    assert stored[0].origin is not None
    assert stored[0].origin.name(second) == f"shards/{second.sha256}"


@pytest.mark.parametrize(
    ("sizes", "small"), [((40 << 20,), True), ((16 << 20, 16 << 20), False), ((16 << 20, 1), True)]
)
def test_small_data_is_streamed_in_the_process(sizes: tuple[int, ...], small: bool) -> None:
    class Shard:
        def __init__(self, size: int) -> None:
            self.bytes = size

        def __call__(self) -> Any:
            yield number_table(self.bytes, 1)

    shards = [Shard(size) for size in sizes]
    assert is_small(shards) is small
    if small:
        ctx: Any = None
        assert numbers_of(stream_tables(shards, ctx)) == [[size] for size in sizes]
        doubled = stream_tables(shards, ctx, lambda table: pa.concat_tables([table, table]))
        assert numbers_of(doubled) == [[size, size] for size in sizes]


def test_progress_is_reported_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[float, float, str]] = []
    now = [100.0]

    class Reports:
        def report(self, done: float, total: float, message: str) -> None:
            lines.append((done, total, message))

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    ctx: Any = Reports()
    progress = ProgressReporter(ctx, 5_000)
    for wait, rows in ((0.0, 1_000), (0.9, 1), (0.1, 1), (0.9, 1)):
        now[0] += wait
        progress.add(rows)
    progress.finish()
    assert lines == [(1_000, 5_000, "1,000 rows"), (1_002, 5_000, "1,002 rows"), (1_003, 1_003, "1,003 rows")]
    ProgressReporter(ctx).add(2)
    assert lines[-1] == (2, 0, "2 rows")


def test_rays_message_about_memory() -> None:
    text = "Memory on the node (IP: 10.0.0.1) was 15.21GB used / 16.00GB limit (0.95), which exceeds"
    assert out_of_memory(text) == "a node ran out of memory (15.21 of 16.00 GB in use)"
    assert out_of_memory("The worker died") == ""
