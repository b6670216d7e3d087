"""read: columns whose values are not what the settings say, each error in full; no value of a row is shown."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import DataError, ParamsError, RaypathError
from raypath.components.read import ReadParams
from tests.components.reading import Read

CORRECT = "correct such rows, or drop them with -s read.nulls=drop"
COUNTED = "(header not counted)"
COMMA = (
    f"{COUNTED}; set -s read.decimal=, for numbers such as 12,50, or correct such rows; -s read.nulls=drop drops them"
)
END = f"{COUNTED}; {CORRECT}"
ONE_COLUMN = "name another column"
USE_SETS = "name another column, or set -s read.kind=set if a row has several classes"
SINGLE = "wanted strings, integers or booleans"
ISO = "a date or time in ISO 8601, such as 2025-03-31T09:30:00+02:00, or 31.03.2025"
PRICE = {"inputs": ("text", "p"), "kinds": {"p": "number"}}
TWO = {"inputs": ("text", "p")}
CSV: dict[str, tuple[str, dict[str, Any], str]] = {
    "both inputs": ("text,p,label\n,,a\nx,,b\n , ,b\n", TWO, f"columns text, p are empty in row 1, 3 {END}"),
    "many rows": ("text,label\n" + " ,a\n" * 5, {}, f"column text is empty in row 1, 2, 3 and at least 2 more {END}"),
    "a number": ("text,p,label\nx,1,a\nx,SECRET,b\n", PRICE,
                 f"column p is not a finite number in row 2 {COMMA}"),
    "a target": ("text,label\nx,1\nx,SECRET\n", {"kind": "number"},
                 f"column label is not a finite number in row 2 {COMMA}"),
    "a target with a comma": ("text,label\nx,1\nx,1.5\n", {"kind": "number", "decimal": ","},
                              f"column label is not a finite number in row 2 {END}"),
    "a set": ("text,label\nx,a|b\nx,[SECRET\n", {"kind": "set"},
              f"column label is not a list of classes in row 2 {COUNTED}; "
              'write ["a", "b"], or a|b with the separator of read.separator'),
    "one-hot": ("text,a,b\nx,1,0\nx,1,SECRET\n", {"kind": "set", "label": "a,b"},
                f"column b is neither 1 nor 0 in row 2 {END}"),
    "a weight": ("text,label,w\nx,a,0\nx,a,-1\n", {"weight": "w"}, f"column w is negative in row 2 {END}"),
    "no weight": ("text,label,w\nx,a,\n", {"weight": "w"}, f"column w is empty in row 1 {END}"),
    "a time": ("text,label,t\nx,a,2026-11-30\nx,a,SECRET\n", {"time": "t"}, f"column t is not {ISO} in row 2 {END}"),
    "no time": ("text,label,t\nx,a,\n", {"time": "t"}, f"column t is empty in row 1 {END}"),
    "a slice": ("text,label,s\nx,a,x\n", {"slices": ("s",), "kinds": {"s": "boolean"}},
                f"column s is not true or false, yes or no, 1 or 0 in row 1 {END}"),
    "a split": ("text,label,split\n" + "x,a,SECRET\n" * 4, {},
                "column split is neither train, valid nor test in row 1, 2, 3 "
                "and at least 1 more; correct it, or ignore the column with -s read.split=none"),
}  # fmt: skip


@pytest.mark.parametrize("case", CSV)
def test_values_of_csv(tmp_path: Path, reading: Read, case: str) -> None:
    data, settings, wanted = CSV[case]
    (tmp_path / "a.csv").write_text(data)
    with pytest.raises(DataError) as caught:
        reading(tmp_path / "a.csv", **settings)
    assert str(caught.value) == f"a.csv: {wanted}"


TYPED: dict[str, tuple[dict[str, pa.Array], dict[str, Any], str]] = {
    "numbers as text": ({"text": pa.array([5])}, {},
                        "column text of a.parquet has int64; wanted text; name another column"),
    "numbers as one of the inputs": (
        {"text": pa.array(["x"]), "p": pa.array([5.0])}, TWO, "column p of a.parquet has double; wanted text; "
        "name another column, or set its kind, such as -s read.kinds.p=number"),
    "a list as the label": ({"label": pa.array([["a"]])}, {},
                            f"column label of a.parquet has list<element: string>; {SINGLE}; {USE_SETS}"),
    "a date as the label": ({"label": pa.array([dt.date(2026, 1, 1)])}, {},
                            f"column label of a.parquet has date32[day]; {SINGLE}; {ONE_COLUMN}"),
    "a list as the group": ({"g": pa.array([["a"]])}, {"group": "g"},
                            "column g of a.parquet has list<element: string>; wanted single values; "
                            "name another column"),
    "a fraction": ({"label": pa.array([1.5])}, {},
                   "column label looks like a regression target: fractions, or over 1,000 numbers; "
                   "wanted classes; set -s read.kind=number to predict numbers, or name a column of classes"),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPED)
def test_types_of_parquet(tmp_path: Path, reading: Read, case: str) -> None:
    columns, settings, wanted = TYPED[case]
    pq.write_table(pa.table({"text": pa.array(["x"]), "label": pa.array(["a"])} | columns), tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        reading(tmp_path / "a.parquet", **settings)
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("label", "kind", "stored"),
    [
        (pa.array([" a ", "b"]), "string", ["a", "b"]),
        (pa.array([1, 0], pa.int8()), "int", ["1", "0"]),
        (pa.array([True, False]), "bool", ["true", "false"]),
        (pa.array([1.0, 2.0]), "int", ["1", "2"]),
        (pa.array(["a", "b"]).dictionary_encode(), "string", ["a", "b"]),
        (pa.array(["a", "b"], pa.large_string()), "string", ["a", "b"]),
        (pa.array([3, 1]).dictionary_encode(), "int", ["3", "1"]),
    ],
)
def test_labels_of_parquet(tmp_path: Path, reading: Read, label: pa.Array, kind: str, stored: list[str]) -> None:
    pq.write_table(pa.table({"text": ["x", "y"], "label": label}), tmp_path / "a.parquet")
    data, rows = reading(tmp_path / "a.parquet")
    assert (data.label_kind, [row["label"] for row in rows]) == (kind, stored)


def test_nan_is_a_missing_label(tmp_path: Path, reading: Read) -> None:
    pq.write_table(pa.table({"text": ["x", "y"], "label": [1.0, float("nan")]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=re.escape(f"a.parquet: column label is empty in row 2 {COUNTED}; {CORRECT}")):
        reading(tmp_path / "a.parquet")
    _, rows = reading(tmp_path / "a.parquet", nulls="drop")
    assert [row["label"] for row in rows] == ["1"]


def _query(folder: Path, query: str) -> tuple[str, dict[str, Any]]:
    with sqlite3.connect(folder / "a.db") as database:
        database.execute("create table t (text, label)")
        database.execute("insert into t values ('x', 'a')")
    database.close()
    return f"sqlite:///{folder}/a.db", {"query": query}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("create table u (x)", "URI rejects read.query (not authorized); correct read.query or read.uri"),
        ("select x from t", "URI rejects read.query (no such column: x); correct read.query or read.uri"),
        ("select text from t", "URI has no column label; it has text; set -s read.label=COLUMN"),
        ("select hex(zeroblob(40000000)) text, label from t",
         "URI has a row with more than 64 MiB in read.query; select shorter values, such as substr(text, 1, 1000000)"),
    ],
)  # fmt: skip
def test_queries(tmp_path: Path, reading: Read, query: str, wanted: str) -> None:
    uri, settings = _query(tmp_path, query)
    with pytest.raises(RaypathError) as caught:
        reading(uri, **settings)
    assert str(caught.value).replace(uri, "URI") == wanted


def _archive(path: Path, method: int, flags: int = 0) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("b.csv", "text,label\nx,a\n")
    if flags:
        data = bytearray(path.read_bytes())
        data[6] |= flags
        data[data.index(b"PK\x01\x02") + 8] |= flags
        path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("method", "flags", "wanted"),
    [
        (zipfile.ZIP_BZIP2, 0, "a.zip/b.csv has an unsupported compression method; write the zip again with deflate"),
        (zipfile.ZIP_STORED, 1, "a.zip/b.csv is encrypted; extract it from a.zip"),
        (zipfile.ZIP_STORED, 32, "a.zip/b.csv uses an unsupported feature of zip; write the zip again"),
    ],
)
def test_archives(tmp_path: Path, reading: Read, method: int, flags: int, wanted: str) -> None:
    _archive(tmp_path / "a.zip", method, flags)
    with pytest.raises(DataError) as caught:
        reading(tmp_path / "a.zip")
    assert str(caught.value) == wanted


TWICE = "inputs (or text), label, group, id, time, weight and slices name the same column twice"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"label": "a,,b", "kind": "set"}, "label has a comma without a name next to it"),
        ({"separator": ""}, "separator is empty"),
        ({"delimiter": ";;"}, "delimiter is one character, or tab"),
        ({"label": "text"}, "inputs (or text), label, group, id, time, weight and slices name the same column twice"),
        (
            {"slices": ("a", "a")},
            "inputs (or text), label, group, id, time, weight and slices name the same column twice",
        ),
        ({"kinds": {"x": "number"}}, "kinds names x, which is no input column"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ParamsError) as caught:
        ReadParams().override(settings)
    assert wanted in str(caught.value)


def test_defaults() -> None:
    wanted = {
        "uri": "sample://reviews", "text": "text", "inputs": (), "conversations": None, "kinds": {},
            "label": "label", "kind": "class",
        "separator": "|", "valid": None, "test": None, "split": "split", "group": None, "id": None, "time": None,
        "weight": None, "slices": (), "nulls": "error", "encoding": "utf-8", "delimiter": "", "quotes": "standard",
        "decimal": ".", "sheet": "", "query": "",
    }  # fmt: skip
    assert ReadParams().model_dump() == wanted
    assert ReadParams(delimiter="tab").file_settings.delimiter == "\t"
    assert ReadParams(delimiter=";").file_settings.delimiter == ";"
    assert ReadParams(label=" a , b", kind="set").labels == ("a", "b")
    assert ReadParams(label="a,b").labels == ("a,b",)
    assert ReadParams(label=None).labels == ()
