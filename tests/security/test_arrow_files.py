"""Arrow files and Delta tables from strangers: offsets that lead outside, bombs, and links."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.columns import Column
from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import rows_of
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.sources.files import find
from tests.security.apart import read_apart

MIB = 1 << 20
COLUMNS = Columns((Column(name="text"),), ("label",))
MEMORY = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")


def write(path: Path, table: pa.Table, kind: Any = pa.ipc.new_stream, **options: Any) -> Path:
    with (
        pa.OSFile(str(path), "wb") as file,
        kind(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as made,
    ):
        made.write_table(table)
    return path


def texts(array: pa.Array) -> pa.Table:
    return pa.table({"text": array, "label": ["x"] * len(array)})


def strings(*offsets: int) -> pa.Array:
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32).tobytes()), pa.py_buffer(b"abcdefgh")]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


def far_index() -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0, 1 << 29], pa.int32()), pa.array(["abc"]), safe=False)


@pytest.mark.parametrize(
    "array", [strings(0, 4, 1 << 30, 8), strings(0, 4, -2_000_000, 8), far_index()], ids=["far", "before", "index"]
)
def test_offsets_that_lead_outside(tmp_path: Path, array: pa.Array) -> None:
    """They ended the process, or read its memory as text."""
    said, _ = read_apart(write(tmp_path / "a.arrow", texts(array)))
    assert said.startswith("DataError a.arrow has invalid data in column text; copy or write the file again")


@MEMORY
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("kind", [pa.ipc.new_stream, pa.ipc.new_file], ids=["stream", "file"])
def test_compressed_batches(tmp_path: Path, codec: str, kind: Any) -> None:
    """zstd expands it a thousand times and more, which is too much from 64 MiB on; lz4 less, up to a limit."""
    path = write(tmp_path / "a.arrow", texts(pa.array(["a" * MIB] * 200)), kind, compression=codec)
    limits = () if codec == "zstd" else ("raypath.components.data.formats.arrow_checks.GROUP_BYTES=200000000",)
    said, grown = read_apart(path, *limits)
    assert said.startswith("DataError a.arrow has a batch that expands to 200 MiB; write it in smaller batches")
    assert grown < 100


def test_compressed_batches_of_usual_size(tmp_path: Path) -> None:
    table = texts(pa.array([f"text {n}" for n in range(5_000)]))
    for codec in ("zstd", "lz4"):
        for kind in (pa.ipc.new_stream, pa.ipc.new_file):
            file = DataFile(write(tmp_path / "a.arrow", table, kind, compression=codec), "arrow")
            assert pa.concat_tables([each for _, each in rows_of(file, COLUMNS)])["text"] == table["text"]


def dictionary(rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a" * MIB]))


def views(rows: int) -> pa.Array:
    same = struct.pack("<i4sii", MIB, b"aaaa", 0, 0) * rows
    return pa.Array.from_buffers(pa.string_view(), rows, [None, pa.py_buffer(same), pa.py_buffer(b"a" * MIB)])


@MEMORY
@pytest.mark.parametrize("make", [dictionary, views])
def test_rows_that_share_one_long_text(tmp_path: Path, make: Callable[[int], pa.Array]) -> None:
    said, grown = read_apart(write(tmp_path / "a.arrow", texts(make(1_500))))
    assert said == "1500 rows "
    assert grown < 600


def test_types_whose_rows_may_share_values(tmp_path: Path) -> None:
    lists = pa.array([["a"], ["b"]], pa.list_view(pa.string()))
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a"]))
    nested = pa.array([["a"], ["b"]]).cast(pa.list_(pa.dictionary(pa.int32(), pa.string())))
    for array in (lists, runs, nested):
        file = DataFile(write(tmp_path / "a.arrow", texts(array)), "arrow")
        with pytest.raises(DataError, match=r"column text of a\.arrow has the type .*, which is not read"):
            list(rows_of(file, COLUMNS))


def test_a_long_row_is_named(tmp_path: Path) -> None:
    table = texts(pa.array(["a"] * 5 + ["b" * (65 * MIB)]))
    with pytest.raises(DataError, match=r"a\.arrow row 6 is longer than 64 MiB"):
        list(rows_of(DataFile(write(tmp_path / "a.arrow", table), "arrow"), COLUMNS))


def delta(folder: Path, table: pa.Table) -> Path:
    pytest.importorskip("deltalake").write_deltalake(str(folder), table)
    return folder


def test_a_link_in_a_delta_table(tmp_path: Path) -> None:
    table = texts(pa.array(["SECRET"]))
    pq.write_table(table, tmp_path / "secret.parquet")
    folder = delta(tmp_path / "t", table)
    [part] = folder.glob("*.parquet")
    part.unlink()
    part.symlink_to(tmp_path / "secret.parquet")
    with pytest.raises(DataError, match="is a link that leads outside of"):
        find(str(folder), logging.getLogger("test"))


@MEMORY
def test_a_row_group_of_a_delta_table_is_not_read_as_a_whole(tmp_path: Path) -> None:
    """Rows that refer to one long text were decoded together: 1.7 GiB for a file of a kilobyte."""
    folder = delta(tmp_path / "t", texts(pa.array(["a"])))
    [part], [log] = folder.glob("*.parquet"), (folder / "_delta_log").glob("*.json")
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 1_500, pa.int32()), pa.array(["a" * MIB]))
    pq.write_table(texts(shared), part, compression="zstd")
    log.write_text(re.sub(r'"size":\d+', f'"size":{part.stat().st_size}', log.read_text()))
    said, grown = read_apart(folder)
    assert said == "1500 rows "
    assert grown < 600
