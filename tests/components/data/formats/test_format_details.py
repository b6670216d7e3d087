"""Types and sizes of Arrow columns, limits, errors of parsers, and cells of Excel, by small cases."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from raypath.components.core.errors import DataError
from raypath.components.data.formats import arrow_checks, excel_book, parquet_reader
from raypath.components.data.formats.arrow_checks import _is_readable, _row_bytes, check_structure, slices
from raypath.components.data.formats.excel_reader import _check_errors, _text
from raypath.components.data.formats.limits import BATCH_BYTES, check_text, too_long
from raypath.components.data.formats.parse_errors import BLOCK, readable
from raypath.components.data.sources import data_file
from raypath.components.data.sources.data_file import DataFile, FileSettings


def _file(folder: Path, data: bytes, name: str = "a.csv", **settings: Any) -> DataFile:
    (folder / name).write_bytes(data)
    return DataFile(folder / name, "tsv" if name.endswith("tsv") else "csv", settings=FileSettings(**settings))


STRUCT = pa.struct([("a", pa.string())])
TYPES: list[tuple[Any, bool]] = [
    (pa.string(), True), (pa.large_string(), True), (pa.string_view(), True), (pa.binary(), True), (pa.int8(), True),
    (pa.timestamp("us"), True), (pa.null(), True), (pa.binary_view(), False), (pa.list_(pa.string()), True),
    (pa.large_list(pa.int64()), True), (pa.list_(pa.int64(), 3), True), (pa.list_(pa.list_(pa.string())), True),
    (pa.list_view(pa.int64()), False), (STRUCT, True), (pa.map_(pa.string(), pa.int64()), True),
    (pa.dictionary(pa.int8(), pa.string()), True), (pa.dictionary(pa.int8(), pa.int64()), True),
    (pa.dictionary(pa.int8(), pa.string_view()), True), (pa.dictionary(pa.int8(), STRUCT), False),
    (pa.list_(pa.dictionary(pa.int8(), pa.string())), False), (pa.list_(pa.string_view()), False),
    (pa.struct([("a", pa.string_view())]), False), (pa.run_end_encoded(pa.int32(), pa.string()), False),
    (pa.dense_union([pa.field("a", pa.string())]), False), (pa.uuid(), False),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "readable"), TYPES, ids=lambda value: str(value)[:40])
def test_types_of_arrow_columns(dtype: Any, readable: bool) -> None:
    assert _is_readable(dtype) is readable


@pytest.mark.parametrize(
    ("column", "sizes"),
    [
        (pa.array(["ab", None, "abcd"]), [2, 0, 4]),
        (pa.array(["ab", None, "abcd"], pa.large_string()), [2, 0, 4]),
        (pa.array([b"ab", None, b"abcd"], pa.large_binary()), [2, 0, 4]),
        (pa.array([b"ab", None, b"abcd"]), [2, 0, 4]),
        (pa.array(["ab", None, "ab"]).dictionary_encode(), [2, 0, 2]),
        (pa.array([7, 8, 7]).dictionary_encode(), [0, 0, 0]),
        (pa.array(["ab", None, "abcd"], pa.string_view()), [2, 0, 4]),
        (pa.array(["x", "ab", None, "abcd"], pa.string_view()).slice(1), [2, 0, 4]),
        (pa.array([1, 2, 3], pa.int64()), [8, 8, 8]),
    ],
    ids=str,
)
def test_bytes_of_rows(column: Any, sizes: list[int]) -> None:
    assert _row_bytes(column).tolist() == sizes


@pytest.mark.parametrize("dtype", [pa.list_(pa.int64()), pa.large_list(pa.int64())])
def test_bytes_of_lists(dtype: Any) -> None:
    column = pa.array([[1, 2], None, [3]], dtype)
    sizes = _row_bytes(column) - column.nbytes // 3
    assert sizes.tolist() == [128, 0, 64]
    fixed = pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2))
    assert (_row_bytes(fixed) - fixed.nbytes // 2).tolist() == [128, 128]


def test_slices_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(tmp_path, b"")
    batch = pa.record_batch({"a": ["x" * size for size in (4, 4, 3, 9, 1, 1, 1, 1)]})
    monkeypatch.setattr(arrow_checks, "BATCH_BYTES", 10)
    assert list(slices(file, batch, 5)) == [(0, 2), (2, 1), (3, 2), (5, 3)]
    monkeypatch.setattr(arrow_checks, "GROUP_ROWS", 2)
    assert list(slices(file, batch, 5)) == [(0, 2), (2, 1), (3, 2), (5, 2), (7, 1)]
    monkeypatch.setattr(arrow_checks, "BATCH_BYTES", 8)
    with pytest.raises(DataError, match=r"^a\.csv row 8 is longer than 64 MiB; divide it into shorter rows$"):
        list(slices(file, batch, 5))
    assert list(slices(file, batch.slice(0, 0), 5)) == []


def test_limits(tmp_path: Path) -> None:
    assert (BATCH_BYTES, BLOCK) == (64 << 20, 1 << 20)
    assert (excel_book.ROWS, excel_book.ROW_BYTES, excel_book.STRING_BYTES) == (1 << 20, 16 << 20, 512 << 20)
    assert (excel_book.PART_BYTES, parquet_reader.PART_BYTES, parquet_reader.ROWS) == (16 << 20, 16 << 20, 32)
    assert (arrow_checks.INFLATION, data_file.COMPRESSED) == (1_000, (".gz", ".zst", ".bz2"))
    file = _file(tmp_path, b"")
    assert str(too_long(file, 3)) == "a.csv row 3 is longer than 64 MiB; divide it into shorter rows"
    good = pa.chunked_array([pa.array(["a", None, "é"])])
    check_text(file, good, 1)
    check_text(file, pa.chunked_array([[1, 2]]), 1)
    buffers = [None, pa.py_buffer(np.array([0, 1, 2], np.int32).tobytes()), pa.py_buffer(b"a\xe9")]
    broken = pa.chunked_array([pa.Array.from_buffers(pa.string(), 2, buffers)])
    with pytest.raises(DataError, match=r"row 9.*; write the file again from UTF-8 text$"):
        check_text(file, broken, 8)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), "a.csv has values too large to read; divide them into shorter rows"),
        (pa.ArrowCapacityError("x"), "a.csv has values too large to read; divide them into shorter rows"),
        (EOFError(), "a.csv is truncated or corrupt csv; copy or compress the file again"),
        (pa.ArrowInvalid("straddling object straddles two block boundaries"),
         "a.csv has a row longer than 1 MiB, probably because of an unclosed quote; "
         "close the quote, or write the file as jsonl"),
        (pa.ArrowInvalid("x"), "a.csv cannot be parsed as csv; write it again as csv, jsonl or parquet"),
        (PermissionError(13, "Permission denied"),
         "a.csv cannot be read (Permission denied); check the file and its permissions"),
        (OSError("x"), "a.csv cannot be read (corrupt); check the file and its permissions"),
    ],
)  # fmt: skip
def test_errors_of_parsers(tmp_path: Path, error: Exception, wanted: str) -> None:
    with pytest.raises(DataError) as caught, readable(_file(tmp_path, b"")):
        raise error
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (True, "true"), (3.0, "3"), (2.5, "2.5"), (1e15, "1000000000000000.0"), (-1e14, "-100000000000000"),
        (dt.datetime(2026, 11, 30), "2026-11-30"), (dt.datetime(2026, 11, 30, 9, 5), "2026-11-30 09:05:00"),
        (dt.time(9, 5), "09:05:00"), ("x ", "x "), (7, "7"),
    ],
)  # fmt: skip
def test_cells_of_excel(value: Any, text: str) -> None:
    assert _text(value, ".") == text
    assert _text(value, ",") == (text.replace(".", ",") if isinstance(value, float) else text)


@pytest.mark.parametrize("cell", ["#N/A", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?", "#NULL!", "#NUM!"])
def test_errors_in_cells_of_excel(tmp_path: Path, cell: str) -> None:
    file = _file(tmp_path, b"", "a.xlsx")
    _check_errors(file, ["a"], ["# N/A"], 3)
    with pytest.raises(DataError) as caught:
        _check_errors(file, ["a", "b"], ["x", cell], 3)
    wanted = f"a.xlsx: column b has the error {cell} in row 3 (header not counted); correct or empty the cell"
    assert str(cast(DataError, caught.value)) == wanted


def test_arrow_columns_that_are_not_read(tmp_path: Path) -> None:
    file = _file(tmp_path, b"", "a.arrow")
    odd = pa.record_batch({"x": pa.array(["a"], pa.binary_view())})
    with pytest.raises(DataError) as caught:
        check_structure(file, odd)
    what = "column x of a.arrow has the type binary_view, which is not read"
    assert str(caught.value) == f"{what}; write it as strings, numbers or lists of them"
    broken = pa.DictionaryArray.from_arrays(pa.array([5], pa.int8()), pa.array(["a"]), safe=False)
    with pytest.raises(DataError) as caught:
        check_structure(file, pa.RecordBatch.from_arrays([broken], ["x"]))
    assert str(caught.value) == "a.arrow has invalid data in column x; copy or write the file again"
