"""Text in other encodings than UTF-8: read where it is certain, else candidates with what they would give."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import pytest

from raypath.components import DataError, ParamsError
from raypath.components.data.formats.encodings import readings
from raypath.components.data.sources.data_file import DataFile
from raypath.components.read import ReadParams
from tests.components.reading import Read

FRENCH = b"text,label\n\xe9l\xe9gant et s\xfbr,pos\nmauvais,neg\n"
UTF16 = "text,label\nschön,a\nnaïve,b\n"


def test_candidates_say_what_they_would_give(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "a.csv").write_bytes(FRENCH)
    with pytest.raises(DataError) as caught:
        reading(tmp_path / "a.csv")
    said = str(caught.value)
    assert said.startswith(
        "a.csv is not UTF-8 at byte 11 (line 2), where it reads é in cp1252 or cp1250, 閘 in gb18030"
    )
    assert said.endswith("such as -s read.encoding=cp1252")
    rows = reading(tmp_path / "a.csv", encoding="cp1252")[1]
    assert [row["text"] for row in rows] == ["élégant et sûr", "mauvais"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("这个产品很好", "gb18030"),
        ("とても良い製品です", "cp932"),
        ("Příliš žluťoučký kůň", "cp1250"),
        ("Привет Мир Это хорошо", "cp1251"),
        ("Привет Мир Это хорошо", "koi8-r"),
        ("café à la crème", "cp850"),
        ("좋은 제품입니다", "cp949"),
    ],
)
def test_the_first_candidate_is_plausible(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(f"text,label\n{text},pos\n".encode(encoding))
    found = readings(DataFile(tmp_path / "a.csv", "csv"), 11 + next(n for n, c in enumerate(text) if not c.isascii()))
    assert next(iter(found)) == encoding
    assert found[encoding] == next(letter for letter in text if not letter.isascii())


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_is_certain(tmp_path: Path, reading: Read, name: str, encoding: str) -> None:
    data = UTF16.replace(",", "\t" if name == "a.tsv" else ",").encode(encoding)
    data = codecs.BOM_UTF16_BE + data if encoding == "utf-16-be" else data
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    rows = reading(tmp_path / name, encoding="cp1252")[1]
    assert rows == [{"text": "schön", "label": "a"}, {"text": "naïve", "label": "b"}]


def test_utf_16_without_a_mark_is_recognised(tmp_path: Path, reading: Read) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        (tmp_path / "a.csv").write_bytes(UTF16.encode(encoding))
        with pytest.raises(DataError, match=f"looks like UTF-16; set -s read.encoding={encoding}"):
            reading(tmp_path / "a.csv")
        assert len(reading(tmp_path / "a.csv", encoding=encoding)[1]) == 2
        lines = '{"text": "天气很好", "label": "好"}\n{"text": "下雨", "label": "坏"}\n'.encode(encoding)
        for name, data in (("a.jsonl", lines), ("a.jsonl.gz", gzip.compress(lines))):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(DataError, match=f"{name} looks like UTF-16; set -s read.encoding={encoding}"):
                reading(tmp_path / name)
            assert reading(tmp_path / name, encoding=encoding)[1][1] == {"text": "下雨", "label": "坏"}
    (tmp_path / "b.csv").write_bytes("文本,标签\n天气很好,好\n".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"b\.csv looks like UTF-16; set -s read\.encoding=utf-16-le"):
        reading(tmp_path / "b.csv")


def test_half_a_character_is_named(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\nä,b\n".encode("utf-16") + b"\x00\xd8\x41\x00")
    with pytest.raises(DataError, match=r"a\.csv is not UTF-16-LE at byte 32 \(line 3\)"):
        reading(tmp_path / "a.csv")


def test_the_setting_may_be_wrong_too(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "a.csv").write_text("text,label\nä,b\n")
    with pytest.raises(DataError, match=r"is not ASCII at byte 11 .line 2., where it reads ä in utf-8"):
        reading(tmp_path / "a.csv", encoding="ascii")
    (tmp_path / "a.jsonl").write_bytes('{"text": "ä", "label": "b"}\n'.encode("cp1252"))
    assert reading(tmp_path / "a.jsonl", encoding="latin1")[1] == [{"text": "ä", "label": "b"}]


@pytest.mark.parametrize(("name", "said"), [("latin_x1", "did you mean latin"), ("rot13", "is unkn"), ("", "is unkn")])
def test_unknown_encodings(name: str, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        ReadParams().override({"encoding": name})


def test_a_byte_far_into_a_file(tmp_path: Path, reading: Read) -> None:
    lines = ["text,label", *[f"text {n} {'x' * 90},a" for n in range(40_000)]]
    data = "\n".join(lines).encode() + b"\nfa\xe7ade,a\n"
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(DataError, match=rf"at byte {data.index(0xE7)} \(line 40002\), where it reads ç in cp1252"):
        reading(tmp_path / "a.csv")
