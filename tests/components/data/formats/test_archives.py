"""Compressed files and archives: zst, bz2, gzip of several members, zip of several files."""

from __future__ import annotations

import bz2
import gzip
import random
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from raypath.components import DataError
from raypath.components.core.columns import Column
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import columns_in, rows_of
from raypath.components.data.sources.data_file import DataFile
from tests.components.reading import ROWS, Read, write

ONE, TWO = b"text,label\na,b\n", b"c,d\n"


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def zipped(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv.gz", gzip.compress(ONE) + gzip.compress(TWO)),
        ("a.csv.zst", zstd(ONE) + zstd(TWO)),
        ("a.csv.bz2", bz2.compress(ONE) + bz2.compress(TWO)),
    ],
    ids=["gz", "zst", "bz2"],  # gzip writes the time, and workers must agree on the names of tests
)
def test_streams_of_several_members(tmp_path: Path, reading: Read, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert reading(tmp_path / name)[1] == [{"text": "a", "label": "b"}, {"text": "c", "label": "d"}]
    (tmp_path / name).write_bytes(data[:-5])
    with pytest.raises(DataError, match=rf"{name} is truncated or corrupt"):
        reading(tmp_path / name)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_every_text_format(tmp_path: Path, reading: Read, kind: str) -> None:
    data = write(tmp_path / f"a.{kind}", ROWS).read_bytes()
    (tmp_path / f"b.{kind}.zst").write_bytes(zstd(data))
    (tmp_path / f"b.{kind}.bz2").write_bytes(bz2.compress(data))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(f"b.{kind}", data)
    for name in (f"b.{kind}.zst", f"b.{kind}.bz2", "b.zip"):
        assert reading(tmp_path / name)[1] == ROWS


def test_files_of_a_zip_with_their_splits(tmp_path: Path, reading: Read, caplog: pytest.LogCaptureFixture) -> None:
    path = zipped(tmp_path / "a.zip", {"train.csv": "text,label\na,b\n", "test.jsonl": '{"text": "c", "label": "d"}'})
    assert [(row["text"], row["split"]) for row in reading(path)[1]] == [("c", "test"), ("a", "train")]
    path = zipped(tmp_path / "b.zip", {"in/a.csv": "text,label\na,b\n", "__MACOSX/in/a.csv": "no", "in/notes": "no"})
    assert [row["text"] for row in reading(path)[1]] == ["a"]
    assert "ignored 1 file in b.zip" in caplog.text


def test_what_is_wrong_with_a_zip(tmp_path: Path, reading: Read) -> None:
    with pytest.raises(DataError, match=r"a.zip has no csv, tsv or json file; extract it"):
        reading(zipped(tmp_path / "a.zip", {"notes": "SECRET"}))
    with pytest.raises(DataError, match=r"b.zip/x.csv row 1 has 3 columns; wanted 2"):
        reading(zipped(tmp_path / "b.zip", {"x.csv": "text,label\nSECRET,b,c\n"}))
    (tmp_path / "c.zip").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"c.zip is truncated or corrupt zip"):
        reading(tmp_path / "c.zip")
    path = zipped(tmp_path / "d.zip", {"x.csv": "text,label\n" + random.Random(0).randbytes(500).hex() + ",a\n"})
    data = bytearray(path.read_bytes())
    data[60:70] = bytes(10)
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"d.zip/x.csv is truncated or corrupt zip"):
        reading(path)
    data = bytearray(zipped(tmp_path / "e.zip", {"x.csv": "text,label\na,b\n"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "e.zip").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"e.zip/x.csv is encrypted; extract it"):
        reading(tmp_path / "e.zip")


def test_a_line_without_an_end_in_a_zip(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.jsonl", "w") as file,
    ):
        for _ in range(70):
            file.write(b"a" * (1 << 20))
    file = DataFile(tmp_path / "a.zip", "json", member="a.jsonl")
    with pytest.raises(DataError, match=r"a.zip/a.jsonl row 1 is longer than 64 MiB"):
        columns_in(file)
    with pytest.raises(DataError, match=r"row 1 is longer than 64 MiB"):
        list(rows_of(file, Columns((Column(name="text"),))))
