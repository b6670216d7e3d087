"""Parts of a prediction: which rows they hold, and files that a kill leaves whole."""

import errno
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import inputs_of
from raypath.components.core.errors import PlatformError, StoreError
from raypath.components.data.streaming.row_files import row_files
from raypath.components.inference.batch import chunks as chunks
from raypath.components.inference.batch.chunks import (
    Chunk,
    TextRows,
    count_attempt,
    finished_chunks,
    plan_chunks,
    text_rows,
    write_chunk,
)
from raypath.components.inference.batch.results import Results


@pytest.mark.parametrize(("rows", "most"), [(1, 2048), (1000, 64), (2049, 2048), (100_000, 2048), (77, 1)])
def test_the_parts_hold_every_row_once_in_order_and_shrink_to_the_end(rows: int, most: int) -> None:
    result = plan_chunks(rows, most)
    assert [chunk.number for chunk in result] == list(range(len(result)))
    assert [chunk.first for chunk in result] == [sum(p.rows for p in result[:k]) for k in range(len(result))]
    assert sum(chunk.rows for chunk in result) == rows
    sizes = [chunk.rows for chunk in result]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) <= most
    assert all(size >= max(most // chunks.SMALLEST, 1) for size in sizes[:-1])


def test_sizes_of_parts_are_halved_where_few_rows_are_left() -> None:
    """A part of 64 rows while 32 of them are left, then of 32, of 16, and at last of 8, an eighth."""
    sizes = Counter(chunk.rows for chunk in plan_chunks(64 * 40, 64))
    assert sizes == {64: 9, 32: 31, 16: 31, 8: 62}
    assert [chunk.rows for chunk in plan_chunks(300, 64)] == [8] * 37 + [4]


def test_a_part_is_read_across_files_and_row_groups(tmp_path: Path) -> None:
    texts = [f"t{k}" for k in range(100)]
    for name, some in (("a", texts[:37]), ("b", texts[37:40]), ("c", texts[40:])):
        pq.write_table(pa.table({"text": some, "label": some}), tmp_path / f"{name}.parquet", row_group_size=10)
    rows = TextRows(row_files([tmp_path / f"{name}.parquet" for name in "abc"], ("text",)))
    assert rows.rows == 100
    read = [rows.read(chunk) for chunk in plan_chunks(100, 17)]
    assert pa.concat_tables(read)["text"].to_pylist() == texts
    assert read[0].column_names == ["row", "text"]
    assert pa.concat_tables(read)["row"].to_pylist() == list(range(1, 101))


def test_rows_have_their_id_or_number_and_their_label(tmp_path: Path) -> None:
    """Of a column that the dataset lacks, none is read; without an id and a row number, rows are numbered."""
    values = {"text": ["a", "b"], "label": ["x", "y"], "id": ["i", "j"], "row": [7, 9], "more": [0, 0]}
    for has, wanted in (
        ("text more", {"row": [1, 2], "text": ["a", "b"]}),
        ("label text row more", {"row": [7, 9], "text": ["a", "b"], "label": ["x", "y"]}),
        ("text id row", {"id": ["i", "j"], "text": ["a", "b"]}),
    ):
        pq.write_table(pa.table({name: values[name] for name in has.split()}), tmp_path / "a.parquet")
        rows = text_rows(Dataset(uri=str(tmp_path), rows=2), inputs_of(()))
        assert rows.read(Chunk(0, 0, 2)).to_pydict() == wanted


def _table(number: int) -> pa.Table:
    return pa.table({"predicted": [number] * 5})


def test_what_a_kill_left_and_what_was_damaged_is_not_taken(tmp_path: Path) -> None:
    for number in (0, 1, 2, 10):
        write_chunk(tmp_path, Chunk(number, number * 5, 5), _table(number))
    whole = finished_chunks(tmp_path)
    assert sorted(whole) == [0, 1, 2, 10]
    data = bytearray(whole[1].read_bytes())
    data[len(data) // 2] ^= 1
    whole[1].write_bytes(data)
    whole[2].write_bytes(whole[2].read_bytes()[:-9])
    (tmp_path / ".00003-half").write_bytes(b"torn")
    left = finished_chunks(tmp_path)
    assert sorted(left) == [0, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in left.values())
    rows = pa.concat_tables(Results(tmp_path).files().read(0, 10))
    assert rows["predicted"].to_pylist() == [0] * 5 + [10] * 5


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **more: object) -> None:
        (tmp_path / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(chunks.os, "fsync", full)
    with pytest.raises(StoreError, match="no free disk space for predictions"):
        write_chunk(tmp_path, Chunk(0, 0, 5), _table(0))
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


def test_what_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    for _ in range(4):
        count_attempt(tmp_path, "chunk-7", 4)
    with pytest.raises(PlatformError, match="crashed 4 times, the last at chunk-7"):
        count_attempt(tmp_path, "chunk-7", 4)
    finished_chunks(tmp_path)
    count_attempt(tmp_path, "chunk-7", 4)
