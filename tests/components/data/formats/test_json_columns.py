"""Keys of JSON files, up to the object where all that are wanted were found, and arrays element by element."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError
from raypath.components.data.formats import json_reader
from raypath.components.data.formats.json_reader import _elements, _parse, json_columns
from raypath.components.data.sources.data_file import DataFile


def _file(folder: Path, *rows: Any, name: str = "a.jsonl") -> DataFile:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataFile(folder / name, "json")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ((), ["a", "b.c"]),
        (("a",), ["a", "b.c"]),
        (("b",), ["a", "b.c", "b"]),
        (("d",), ["a", "b.c", "d"]),
        (("e",), ["a", "b.c", "d", "e", "f"]),
        (("none",), ["a", "b.c"]),
        (("x.y",), ["a", "b.c", "d", "e", "f"]),
        (("é",), ["a", "b.c", "d", "e", "f"]),
    ],
)
def test_columns_are_searched_until_all_are_found(tmp_path: Path, wanted: tuple[str, ...], names: list[str]) -> None:
    file = _file(tmp_path, {"a": 1, "b": {"c": 2}}, {"d": 3}, {"e": 4, "f": 5})
    assert json_columns(file, wanted) == names


def test_keys_are_collected_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "_KEYS", 3)
    file = _file(tmp_path, {"a": 1, "b": 1}, {"c": 1}, {"d": 1}, {"e": 1}, {"f": 1})
    assert json_columns(file, ("f",)) == ["a", "b", "c", "f"]


@pytest.mark.parametrize(
    ("name", "data", "wanted", "error"),
    [
        ("a.jsonl", "", ("a",), "a.jsonl has no rows; remove it, or write it again"),
        ("a.json", "[]", ("a",), "a.json has no rows; remove it, or write it again"),
        ("a.json", '{"rows": [{"a": 1}]}', ("a",), "a.json is one object with the rows in its key rows; "
         "wanted an array of objects; jq '.[\"rows\"]' a.json > rows.json"),
        ("a.json", '{"x": 1, "my rows": [{"a": 1}]}', ("a",), "a.json is one object with the rows in its key my rows; "
         "wanted an array of objects; jq '.[\"my rows\"]' a.json > rows.json"),
        ("a.jsonl", '{"rows": [{"a": 1}]}', ("a",), ["rows"]),
        ("a.json", '{"rows": []}', ("a",), ["rows"]),
        ("a.json", '{"rows": [1]}', ("a",), ["rows"]),
        ("a.json", '{"rows": [{"a": 1}], "a": 2}', ("a",), ["rows", "a"]),
        ("a.json", '{"rows": [{"a": 1}]}', (), ["rows"]),
    ],
)  # fmt: skip
def test_files_without_rows(tmp_path: Path, name: str, data: str, wanted: tuple[str, ...], error: Any) -> None:
    (tmp_path / name).write_text(data)
    file = DataFile(tmp_path / name, "json")
    if isinstance(error, list):
        assert json_columns(file, wanted) == error
        return
    with pytest.raises(DataError) as caught:
        json_columns(file, wanted)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[{"a": 1}, {"b": 2}]', ['{"a": 1}', '{"b": 2}']),
        (' [ {"a": 1} ] \n', ['{"a": 1}']),
        ('{"a": 1}\n{"b": 2}', ['{"a": 1}', '{"b": 2}']),
        ('{"a":\n 1}', ['{"a":\n 1}']),
        ("[]", []),
        ("", []),
        ("[1]", "a.json: element 1 is not a JSON object; write one array of objects"),
        ('[{"a": 1}, 2]', "a.json: element 2 is not a JSON object; write one array of objects"),
        ('[, {"a": 1}]', "a.json: element 1 is not a JSON object; write one array of objects"),
        ('[{"a": 1}] {"b": 2}', "a.json: element 2 is not a JSON object; write one array of objects"),
        ('{"a": 1}, {"b": 2}', "a.json: element 2 is not a JSON object; write one array of objects"),
        ('{"a": 1} [', "a.json: element 2 is not a JSON object; write one array of objects"),
        ('[{"a": 1}]]', "a.json: element 2 is not a JSON object; write one array of objects"),
        ('[{"a": 1', "a.json: element 1 is not a JSON object; write one array of objects"),
        ('[{"a": 1}', "a.json ends within its array; copy or write the file again"),
        ("[", "a.json ends within its array; copy or write the file again"),
    ],
)
def test_elements(tmp_path: Path, text: str, wanted: Any) -> None:
    file = DataFile(tmp_path / "a.json", "json")
    if isinstance(wanted, list):
        assert [each for each, _ in _elements(file, io.BytesIO(text.encode()))] == wanted
        return
    with pytest.raises(DataError) as caught:
        list(_elements(file, io.BytesIO(text.encode())))
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [('{"a": 1}', ({"a": 1}, False)), ("{", (None, True)), ('{"a":', (None, True)), ("[1", (None, False)),
     ('{"a": x}', (None, False)), ("1" * 5_000, (None, False))],
)  # fmt: skip
def test_lines(text: str, wanted: Any) -> None:
    assert _parse(text) == wanted
