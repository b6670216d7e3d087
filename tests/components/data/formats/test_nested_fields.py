"""Fields of nested objects and structs, under dotted names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import DataError
from raypath.components.data.columns.nested import columns_of, field_names, field_of, key_names, value_of
from raypath.deploy.api.inspection import inspect
from tests.components.reading import Read

ROWS: list[dict[str, Any]] = [
    {"id": "T-1", "message": {"subject": "s1", "body": {"text": "first"}}, "meta": {"topic": "x"}},
    {"id": "T-2", "message": None, "meta": {"topic": "y"}},
    {"id": "T-3", "message": {"subject": None, "body": None}, "meta": {"topic": "x"}},
    {"id": "T-4", "message": {"subject": "s4", "body": {"text": "last"}}, "meta": {"topic": "y"}},
]
SETTINGS: dict[str, Any] = {"inputs": ("message.subject", "message.body.text"), "label": "meta.topic", "id": "id"}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write(table)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "rows.arrow"])
def test_the_same_rows_in_every_format(tmp_path: Path, reading: Read, name: str) -> None:
    path = written(tmp_path / name, ROWS)
    with pytest.raises(DataError, match=r"message\.subject, message\.body\.text are empty in row 2, 3"):
        reading(path, **SETTINGS)
    dataset, rows = reading(path, **SETTINGS, nulls="drop")
    first, last = ({"input.message.subject": f"s{n}", "input.message.body.text": text} for n, text in TEXTS)
    assert rows == [{**first, "label": "x", "id": "T-1"}, {**last, "label": "y", "id": "T-4"}]
    assert [column.name for column in dataset.columns][:2] == ["message.subject", "message.body.text"]


TEXTS = ((1, "first"), (4, "last"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_an_error_lists_the_dotted_names(tmp_path: Path, reading: Read, name: str) -> None:
    path = written(tmp_path / name, [ROWS[0], ROWS[3]])
    with pytest.raises(DataError, match=r"has no column body; it has .*message\.body\.text"):
        reading(path, text="body", label="meta.topic")
    with pytest.raises(DataError, match=r"column message of rows\.\w+ has .*; wanted text"):
        reading(path, text="message", label="meta.topic")


def test_a_name_with_dots_comes_first_and_a_field_may_come_late(tmp_path: Path, reading: Read) -> None:
    rows = [{"a": {"b": "inner"}, "a.b": "outer", "label": "x"}, {"label": "y", "a": {"b": "only"}}]
    assert [row["text"] for row in reading(written(tmp_path / "d.jsonl", rows), text="a.b")[1]] == ["outer", "only"]
    late = [{"label": "x"}, {"label": "y", "a": {"b": "late"}}]
    _, found = reading(written(tmp_path / "e.jsonl", late), text="a.b", nulls="drop")
    assert [row["text"] for row in found] == ["late"]


def test_names_and_values() -> None:
    row = {"a": {"b": 1, "c.d": {"e": 2}}, "f": {}, "g": {str(n): n for n in range(40)}, "h": [{"i": 1}]}
    assert list(key_names(row)) == ["a.b", "a.c.d.e", "f", "g", "h"]
    assert [value_of(row, name) for name in ("a.b", "a.c.d.e", "g.7", "a.x", "h.i")] == [1, 2, 7, None, None]
    table = pa.Table.from_pylist([{"a": {"b.c": {"d": 1}}, "x.y": 2}, {"a": None, "x.y": 3}])
    assert field_names(table.schema) == ["a.b.c.d", "x.y"]
    assert field_names(table.schema, ["a"]) == ["a.b.c.d", "x.y", "a"]
    assert columns_of(table.schema, ["a.b.c.d", "x.y", "z"]) == ["a", "x.y", "z"]
    assert field_of(table, "a.b.c.d").to_pylist() == [1, None]


def test_inspect_takes_a_nested_text(tmp_path: Path) -> None:
    rows = [{"message": {"body": f"This is the text number {n}, and it has several words."}} for n in range(40)]
    rows = [{**row, "meta": {"topic": "xy"[n % 2]}} for n, row in enumerate(rows)]
    report = inspect(written(tmp_path / "d.jsonl", rows))
    assert {column.role: column.name for column in report.columns} == {"text": "message.body", "label": "meta.topic"}
