"""JSON: keys that come later, one array, objects over several lines, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypath.components import DataError
from raypath.components.data.formats import json_reader
from raypath.components.data.formats.readers import columns_in
from raypath.components.data.sources.data_file import DataFile
from tests.components.reading import ROWS, Read

KEYS = b"""{"text":"one","label":"a"}
{"text":"two","label":"b","split":"test"}
{"text":"three","label":"a","split":"test"}
{"text":"four","label":"b","split":"train"}
"""
LABEL = b"""{"text":"no label yet"}
{"text":"two","label":"b"}
{"text":"three","label":"a"}
"""


def test_keys_of_all_objects_count(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "a.jsonl").write_bytes(KEYS)
    dataset, rows = reading(tmp_path / "a.jsonl")
    assert dataset.presplit
    assert [row["split"] for row in rows] == [None, "test", "test", "train"]


def test_an_absent_key_is_a_missing_value(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "a.jsonl").write_bytes(LABEL)
    with pytest.raises(DataError, match=r"column label is empty in row 1 .*read\.nulls=drop"):
        reading(tmp_path / "a.jsonl")
    assert [row["text"] for row in reading(tmp_path / "a.jsonl", nulls="drop")[1]] == ["two", "three"]


@pytest.mark.parametrize("key", ["split", "größe", 'a "b"'])
def test_a_key_that_comes_very_late(tmp_path: Path, key: str) -> None:
    for ascii_only in (True, False):
        last = json.dumps({"text": "b", key: "x"}, ensure_ascii=ascii_only)
        (tmp_path / "a.jsonl").write_text('{"text": "a split"}\n' * 60_000 + last)
        assert columns_in(DataFile(tmp_path / "a.jsonl", "json"), {"text", key, "no"}) == ["text", key]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
def test_an_array_gives_the_rows_of_its_lines(
    tmp_path: Path, reading: Read, monkeypatch: pytest.MonkeyPatch, indent: int | None, chunk: int
) -> None:
    monkeypatch.setattr(json_reader, "_CHUNK", chunk)
    (tmp_path / "a.json").write_text(
        f"\n {json.dumps(ROWS, indent=indent, ensure_ascii=False)}\n", encoding="utf-8-sig"
    )
    assert reading(tmp_path / "a.json")[1] == ROWS
    (tmp_path / "b.json").write_text("\n".join(json.dumps(row, indent=indent) for row in ROWS))
    assert reading(tmp_path / "b.json")[1] == ROWS


BAD: dict[str, tuple[bytes, str]] = {
    "key twice": (b'{"text":"SECRET","text":"b","label":"x"}\n', "a.json row 1 has the key text twice"),
    "key twice in an array": (
        b'[{"text":"a","label":"x"},{"text":"b","label":"x","label":"y"}]',
        "row 2 has the key label",
    ),
    "nested": (b'{"text":{"a":1},"label":"x"}\n', "column text of a.json has dict in row 1"),
    "columns of pandas": (b'{"text":{"0":"SECRET"},"label":{"0":"b"}}', "has dict in row 1"),
    "cut in an element": (b'[{"text":"a","label":"x"},\n{"text":"SECRET","lab', "element 2 is not a JSON object"),
    "cut behind one": (b'[{"text":"a","label":"x"}', "a.json ends within its array"),
    "more behind it": (b'[{"text":"a","label":"x"}] SECRET', "element 2 is not a JSON object"),
    "lists": (b'["SECRET","b"]\n["c","d"]\n', "element 1 is not a JSON object"),
    "empty array": (b"[]", "a.json has no rows"),
    "inside": (b'{"version": 1,\n "data": [{"text": "SECRET"}]}', """jq '.["data"]' a.json > rows.json"""),
}


@pytest.mark.parametrize("case", BAD)
def test_other_files_are_one_line(tmp_path: Path, reading: Read, case: str) -> None:
    data, wanted = BAD[case]
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DataError) as caught:
        reading(tmp_path / "a.json")
    assert wanted in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_words_like_keys_in_texts_are_texts(tmp_path: Path, reading: Read) -> None:
    row = {"text": 'say "text": "text"', "more": {"text": 1, "label": 2}, "label": "x"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert reading(tmp_path / "a.jsonl")[1] == [{"text": row["text"], "label": "x"}]


def test_an_element_beyond_the_limit(tmp_path: Path, reading: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "BATCH_BYTES", 100_000)
    (tmp_path / "a.json").write_text('[{"text": "' + "x" * 900_000 + '"}]')
    with pytest.raises(DataError, match="row 1 is longer than"):
        reading(tmp_path / "a.json")
