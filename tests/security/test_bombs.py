"""Small files that stand for gigabytes: they are read within a bound, or rejected in one line."""

import gzip
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.columns import Column
from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import columns_in, rows_of
from raypath.components.data.sources.files import DataFile, format_of
from raypath.components.data.streaming import parquet
from raypath.components.data.streaming.parquet import TableWriter
from tests.security.apart import read_apart

MIB = 1 << 20
TEXTS = (Column(name="text"),)


def _gzip(path: Path, *parts: tuple[bytes, int]) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part, times in parts:
            for _ in range(times):
                file.write(part)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_one_line_without_an_end(tmp_path: Path) -> None:
    bomb = _gzip(tmp_path / "a.jsonl.gz", (b'{"text": "', 1), (b"a" * MIB, 450), (b'"}', 1))
    said, grown = read_apart(bomb)
    assert said.startswith("DataError a.jsonl.gz row 1 is longer than 64 MiB; divide it into shorter rows")
    assert grown < 400


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_a_header_without_an_end(tmp_path: Path) -> None:
    said, grown = read_apart(_gzip(tmp_path / "a.csv.gz", (b"a" * MIB, 200)))
    assert said.startswith("DataError the header of a.csv.gz cannot be parsed")
    assert grown < 100


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_a_dictionary_that_every_row_refers_to(tmp_path: Path) -> None:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1_500, pa.int32()), pa.array(["a" * MIB]))
    pq.write_table(pa.table({"text": text, "label": ["x"] * 1_500}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 2_000
    said, grown = read_apart(tmp_path / "a.parquet")
    assert said == "1500 rows "
    assert grown < 600


def test_a_column_that_expands_more_than_a_thousand_times(tmp_path: Path) -> None:
    table = pa.table({"text": ["a" * MIB] * 80, "label": ["x"] * 80})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    file = DataFile(tmp_path / "a.parquet", "parquet")
    with pytest.raises(DataError, match=r"a\.parquet expands more than 1,000-fold, to 80 MiB"):
        next(rows_of(file, Columns(TEXTS, ("label",))))
    assert next(rows_of(file, Columns((Column(name="label"),))))[1].num_rows == 80, (
        "columns that are not read do not count"
    )


def test_one_long_row_among_short_ones_is_named(tmp_path: Path) -> None:
    texts = ["short"] * 40 + [random.Random(0).randbytes(35 * MIB).hex()] + ["short"] * 9  # digits: they do not inflate
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="snappy", use_dictionary=False)
    with pytest.raises(DataError, match=r"a\.parquet row 41 is longer than 64 MiB; divide it into shorter rows"):
        list(rows_of(DataFile(tmp_path / "a.parquet", "parquet"), Columns(TEXTS)))


def test_rows_that_fill_a_group_are_counted_before_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1 << 20)
    rows = pa.table({"text": ["a" * 100_000] * 4})
    writer = TableWriter(tmp_path / "long", rows.schema)
    writer.write(rows)
    writer.write(rows)
    with pytest.raises(DataError, match=r"12 rows from row 1 on have more than .*divide long texts into several rows"):
        writer.write(rows)
    short = pa.table({"text": ["a" * 100] * 4})
    with TableWriter(tmp_path / "short", short.schema) as writer:
        for _ in range(20_000):
            writer.write(short)
    assert writer.rows == 80_000


def test_rows_keep_their_numbers_and_values(tmp_path: Path) -> None:
    texts = [f"text {n}" * (n % 50) for n in range(5_000)]
    pq.write_table(pa.table({"text": texts, "label": ["a", "b"] * 2_500}), tmp_path / "a.parquet", row_group_size=700)
    found = list(rows_of(DataFile(tmp_path / "a.parquet", "parquet"), Columns(TEXTS, ("label",))))
    assert [row for row, _ in found] == [1, 2_049, 4_097]
    assert pa.concat_tables([table for _, table in found])["text"].to_pylist() == texts


@pytest.mark.parametrize("size", [1, 7, MIB - 1, MIB, MIB + 1])
def test_a_header_is_read_whole_at_any_size_of_the_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\ufefftext,größe\n".encode() + b"x" * size + b",y\n")
    assert columns_in(DataFile(path, format_of(path))) == ["text", "größe"]
