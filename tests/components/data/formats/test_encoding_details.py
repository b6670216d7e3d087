"""Readings of text in other encodings, and byte order marks, by small cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components.data.formats.encodings import (
    CANDIDATES,
    _decoded,
    _has_own_letters,
    _oddities,
    invalid_byte,
    readings,
)
from raypath.components.data.sources.data_file import DataFile, FileSettings
from raypath.components.data.sources.streams import MARKS, open_bytes, open_encoded


def _file(folder: Path, data: bytes, name: str = "a.csv", **settings: Any) -> DataFile:
    (folder / name).write_bytes(data)
    return DataFile(folder / name, "tsv" if name.endswith("tsv") else "csv", settings=FileSettings(**settings))


def test_candidates_in_their_order() -> None:
    assert (
        *("utf-8", "cp1252", "cp1250", "cp1251", "gb18030", "cp932", "euc_jp", "big5", "cp949", "cp1253", "cp1254"),
        *("cp1255", "cp1256", "koi8-r", "mac_roman", "cp850", "cp437"),
    ) == CANDIDATES


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("plain text", 0), ("café", 0), ("caféé", 1), ("aБ", 1), ("привет", 0), ("приВет", 1), ("a©b", 2), ("© x", 0),
        ("5° ", 1), ("日本の", 0), ("x²", 1),
    ],
)  # fmt: skip
def test_pairs_of_letters_that_are_rare(text: str, count: int) -> None:
    assert _oddities(text) == count


def test_samples_of_an_encoding() -> None:
    assert _decoded("é".encode("cp1252"), "cp1252") == "é"
    assert _decoded("é".encode()[:1], "utf-8") == "", "a character that is cut off"
    assert _decoded(b"\xff", "utf-8") is None
    assert _decoded(b"a\x01", "cp1252") is None
    assert _decoded(b"a\t\r\n", "cp1252") == "a\t\r\n"
    assert [_has_own_letters(text) for text in ("あ漢漢漢", "あ漢漢漢漢", "한", "abc", "漢")] == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_the_first_invalid_byte(tmp_path: Path) -> None:
    assert invalid_byte(_file(tmp_path, b"ab\ncd\xe9\n")) == (5, 2)
    assert invalid_byte(_file(tmp_path, b"\xef\xbb\xbfa\n\xe9")) == (5, 2)
    assert invalid_byte(_file(tmp_path, "é\n".encode() + b"\xc3")) == (3, 2)
    assert readings(_file(tmp_path, "naïve café\n".encode("cp1252")), 2)["cp1252"] == "ï"
    assert next(iter(readings(_file(tmp_path, "привет мир\n".encode("cp1251")), 0).items())) == ("cp1251", "п")


@pytest.mark.parametrize("mark", MARKS)
def test_byte_order_marks(tmp_path: Path, mark: bytes) -> None:
    encoding = MARKS[mark]
    file = _file(tmp_path, mark + "é,b".encode(encoding), encoding="cp1252")
    raw, found, offset = open_encoded(file)
    raw.close()
    assert (found, offset) == (encoding, len(mark))
    with open_bytes(file) as text:
        assert text.read() == "é,b".encode()
    with open_bytes(_file(tmp_path, "é".encode("cp1252"), encoding="cp1252")) as text:
        assert text.read() == "é".encode()
