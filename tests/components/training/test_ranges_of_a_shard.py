"""Row groups of a shard read by their range of bytes, from a bucket in memory; the cache of blocks."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.errors import StoreError
from raypath.components.training.batches import row_group_ranges
from raypath.components.training.batches.row_group_ranges import GroupRange, _Range
from raypath.components.training.batches.token_blocks import BlockCache, BlockPlace, TokenBlock, first_pass, to_block

ROWS = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]]


class Bucket:
    """The bytes of one file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[Any] = []
        self.error: Exception | None = None

    def read_range(self, name: str, start: int, size: int) -> bytes:
        self.reads.append((name, start, size))
        if self.error is not None:
            raise self.error
        return self.data[start : start + size]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    columns = {"text": ["a" * 50] * 4, "input_ids": pa.array(ROWS, pa.list_(pa.int32()))}
    columns["features"] = pa.array([[float(n), 0.5] for n in range(4)], pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), tmp_path / "part.parquet", row_group_size=2)
    return tmp_path / "part.parquet"


@pytest.fixture
def bucket(path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket(path.read_bytes())
    monkeypatch.setattr(row_group_ranges, "bucket_of", lambda address: made if address == "s3://b/f" else None)
    return made


def _shard(path: Path) -> Any:
    origin = SimpleNamespace(address="s3://b/f", name=lambda written: f"parts/{written.sha256}")
    written = SimpleNamespace(sha256="digest", bytes=path.stat().st_size)
    return SimpleNamespace(path=path, origin=origin, written=written, is_here=False)


def _range(path: Path, group: int, *columns: str) -> GroupRange:
    with pq.ParquetFile(path, pre_buffer=False) as file, open(path, "rb") as raw:
        return GroupRange.of(_shard(path), file, raw.fileno(), group, columns)


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("columns", [("input_ids",), ("input_ids", "features"), ("text",)])
def test_a_group_is_read_by_its_range_alone(path: Path, bucket: Bucket, group: int, columns: tuple[str, ...]) -> None:
    made = _range(path, group, *columns)
    size = path.stat().st_size
    assert 0 < made.start < made.start + made.size < size
    assert made.size < size // 2, "other columns and the footer are left out"
    found = made.read()
    assert bucket.reads == [("parts/digest", made.start, made.size)]
    with pq.ParquetFile(path) as file:
        assert found.equals(file.read_row_group(group, columns=list(columns)))


def test_other_bytes_are_no_rows(path: Path, bucket: Bucket) -> None:
    made = _range(path, 0, "input_ids")
    bucket.data = bucket.data[: made.start] + b"\0" + bucket.data[made.start + 1 :]
    assert made.read() is None
    for bucket.error in (FileNotFoundError(), StoreError("x")):
        assert made.read() is None
    bucket.error = ValueError("x")
    with pytest.raises(ValueError, match="x"):
        made.read()


def test_a_range_is_a_file_of_the_whole_size() -> None:
    file = _Range(b"3456", 3, 10)
    assert file.readable()
    assert file.seekable()
    assert (file.seek(4), file.read(2), file.tell()) == (4, b"45", 6)
    assert (file.seek(-1, os.SEEK_CUR), file.read()) == (5, b"56")
    assert (file.tell(), file.seek(-6, os.SEEK_END), file.read(0), file.read(1)) == (7, 4, b"", b"4")


def test_the_first_pass_knows_where_each_group_is(path: Path, bucket: Bucket) -> None:
    from raypath.components.data.streaming.shard_files import ShardFile

    [(one, first), (two, second)] = first_pass([ShardFile(path)], ("target",))
    assert [place.remote for place in (one, two)] == [None, None]
    assert [place.group for place in (one, two)] == [0, 1]
    assert one.is_here
    assert (first.ids.tolist(), second.ids.tolist()) == ([1, 2, 3, 4], [5, 6, 7, 8, 9, 10])
    assert (first.offsets.tolist(), second.offsets.tolist()) == ([0, 3, 4], [0, 2, 6])
    assert first.features is not None
    assert first.features.tolist() == [[0.0, 0.5], [1.0, 0.5]]
    assert (first.targets, first.weights, first.size) == (None, None, 8)
    remote = BlockPlace(_shard(path), 1, _range(path, 1, "input_ids", "features"))
    assert not remote.is_here
    assert remote.read().ids.tolist() == second.ids.tolist()
    assert one.read().ids.tolist() == first.ids.tolist()
    assert len(bucket.reads) == 1


def test_a_table_as_arrays() -> None:
    table = pa.table(
        {
            "input_ids": pa.chunked_array([pa.array([[1, 2]], pa.list_(pa.int32())), [[3]]]),
            "target": [0, 1],
            "weight": [0.5, 2.0],
        }
    )
    found = to_block(table)
    assert (found.ids.dtype, found.offsets.dtype) == (np.int32, np.int64)
    assert (found.ids.tolist(), found.offsets.tolist(), found.size) == ([1, 2, 3], [0, 2, 3], 3)
    assert found.weights is not None
    assert (found.weights.dtype, found.weights.tolist()) == (np.float32, [0.5, 2.0])
    assert found.targets.to_pylist() == [0, 1]
    assert found.features is None


class Place:
    """A block of a size, which counts its reads."""

    def __init__(self, size: int, is_here: bool = True) -> None:
        self.size, self.is_here, self.reads = size, is_here, 0

    def read(self) -> TokenBlock:
        self.reads += 1
        return TokenBlock(np.zeros(self.size, np.int32), np.array([0, self.size]), None)


def test_blocks_are_kept_up_to_a_limit_the_last_used_first() -> None:
    places: Any = [Place(4), Place(3), Place(2), Place(20)]
    cache = BlockCache(places, 7)
    for number in (0, 1, 0, 2, 0, 1):
        assert len(cache[number].ids) == places[number].size
    assert [place.reads for place in places] == [1, 2, 1, 0], "the third took the place of the second"
    assert (cache.reads, cache.size) == (4, 7)
    assert len(cache[3].ids) == 20, "one block is kept whatever its size"
    assert (list(cache._cached), cache.size) == ([3], 20)
    assert [len(block.ids) for block in cache.several([3, 1, 0])] == [20, 3, 4]


def test_remote_blocks_are_fetched_together() -> None:
    places: Any = [Place(1, is_here=False) for _ in range(10)] + [Place(1)]
    cache = BlockCache(places, 100)
    assert len(list(cache.several(list(range(11))))) == 11
    assert [place.reads for place in places] == [1] * 11
    assert len(list(cache.several([0, 10]))) == 2
    assert cache.reads == 11
