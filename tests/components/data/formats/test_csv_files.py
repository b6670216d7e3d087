"""CSV as programs and people write it: quotes, escapes, separators, headers. No row is lost or joined with another."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from raypath.components import DataError, ParamsError
from raypath.components.data.formats.csv.quotes import BackslashQuotes, IrregularQuote, QuoteCheck
from raypath.components.data.formats.parse_errors import BLOCK
from raypath.components.read import ReadParams
from tests.components.reading import Read

STRAY = b'text\tlabel\nplain\ta\n"great movie\ta\nbad one\tb\n"awful" film\tb\nlast\ta\n'
BACKSLASH = (
    b'text,label\n"He said \\"hi\\" to me",pos\n"He said \\"hi\\", then left",neg\n'
    b'"Nothing special",pos\n"Nothing at all",neg\n'
)
GERMAN = '"Text, Kommentar";Label\n"gut, schnell";pos\n"schlecht, spät";neg\n'.encode()
ROWS: dict[str, tuple[bytes, list[str]]] = {
    "quotes in values": (b'text,label\n5" disk,a\nsay "hi" x,b\n"a ""q"" b",c\n', ['5" disk', 'say "hi" x', 'a "q" b']),
    "line ends in values": (b'text,label\r\n"a\r\nx",b\r\n"c",d\r\n', ["a\r\nx", "c"]),
    "old Macintosh": (b"text,label\ra,b\rc,d\r", ["a", "c"]),
    "blank lines": (b"\n\ntext,label\n\na,x\n\n\nb,y\n\n", ["a", "b"]),
    "separator at the end": (b"text,label,\na,b,\n", ["a"]),
    "spaces around names": (b" text , label\n a, b\n", [" a"]),
    "mark and quoted name": (b'\xef\xbb\xbf"text",label\na,b\n', ["a"]),
    "index of pandas": (b",text,label\n0,a,b\n", ["a"]),
    "other columns twice": (b"x,x,text,label\n1,2,a,b\n", ["a"]),
    "zero bytes": (b"text,label\na\0b,x\n", ["a\0b"]),
    "line for Excel": (b"sep=;\ntext;label\na, b;x\n", ["a, b"]),
    "pipes": (b"text|label\na, b|x\n", ["a, b"]),
    "semicolons": (b"text;label\na, b;x\nc, d, e;y\n", ["a, b", "c, d, e"]),
    "a line end in a name": (b'"te\nxt",text,label\n1,a,b\n', ["a"]),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_are_as_written(tmp_path: Path, reading: Read, case: str) -> None:
    data, texts = ROWS[case]
    (tmp_path / "a.csv").write_bytes(data)
    assert [row["text"] for row in reading(tmp_path / "a.csv")[1]] == texts


BAD: dict[str, tuple[str, bytes, str]] = {
    "stray quotes": ("a.tsv", STRAY, "a.tsv row 2 begins with a quote that is not closed .* -s read.quotes=none"),
    "tabs and rows in quotes": ("a.tsv", b'text\tlabel\n"x\ta\ny"\tb\n', "a.tsv row 1 begins with a quote"),
    "backslashes": ("a.csv", BACKSLASH, r'a.csv row 1 has \\" in a quoted value; .* -s read.quotes=backslash'),
    "backslash, comma": ("a.csv", b'text,label\n"a \\", b",x\n', r'row 1 has 3 columns.* and it has \\"; .*=backslash'),
    "open to the end": ("a.csv", b'label,text\na,b\na,"SECRET\nb,y\n', "a.csv row 2 begins with a quote"),
    "open, old Macintosh": ("a.csv", b'text,label\r"a\rx",b\r"SECRET"x,d', "a.csv row 2 begins with a quote"),
    "separators at the end": ("a.csv", b"text,label\nSECRET,b,\n", "remove the separator at the end of rows"),
    "too few": ("a.csv", b"text,label\na,b\nSECRET\n", "a.csv row 2 has 1 columns; wanted 2"),
    "capitals": ("a.csv", b"Text,Label\nSECRET,b\n", "has no column text; .* set -s read.text=Text$"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_rows_are_named(tmp_path: Path, reading: Read, case: str) -> None:
    name, data, wanted = BAD[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=wanted) as caught:
        reading(tmp_path / name)
    assert "SECRET" not in str(caught.value)


def test_the_settings_that_errors_name(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "a.tsv").write_bytes(STRAY)
    texts = [row["text"] for row in reading(tmp_path / "a.tsv", quotes="none")[1]]
    assert texts == ["plain", '"great movie', "bad one", '"awful" film', "last"]
    (tmp_path / "a.csv").write_bytes(BACKSLASH)
    texts = [row["text"] for row in reading(tmp_path / "a.csv", quotes="backslash")[1]]
    assert texts == ['He said "hi" to me', 'He said "hi", then left', "Nothing special", "Nothing at all"]


def test_separators_are_looked_for_outside_quotes(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "a.csv").write_bytes(GERMAN)
    rows = reading(tmp_path / "a.csv", text="Text, Kommentar", label="Label")[1]
    assert rows == [{"text": "gut, schnell", "label": "pos"}, {"text": "schlecht, spät", "label": "neg"}]
    (tmp_path / "b.csv").write_text("text, de;label\ngut, schnell;pos\n")
    rows = reading(tmp_path / "b.csv", text="text, de", delimiter=";")[1]
    assert rows == [{"text": "gut, schnell", "label": "pos"}]
    with pytest.raises(ParamsError, match="delimiter is one character, or tab"):
        ReadParams().override({"delimiter": "||"})


def passes(data: bytes, size: int, delimiter: str = ",") -> bool:
    check = QuoteCheck(io.BytesIO(data), delimiter)
    try:
        while check.read(size):
            pass
    except IrregularQuote:
        return False
    return True


def test_quotes_are_checked_as_the_csv_module_does() -> None:
    rng, kept = random.Random(0), 0
    for _ in range(4_000):
        text = "".join(rng.choices('"",\na', k=rng.randint(1, 14)))
        try:
            list(csv.reader(io.StringIO(text, newline=""), strict=True))
            regular = True
        except csv.Error:
            regular = False
        kept += regular
        assert [passes(text.encode(), size) for size in (1, 2, 3, 100)] == [regular] * 4, text
    assert 500 < kept < 3_500


def test_backslashes_at_the_ends_of_chunks() -> None:
    data = rb'a\\\"b\nc\\"' + b"\\"
    for size in range(1, len(data) + 1):
        stream, found = BackslashQuotes(io.BytesIO(data)), b""
        while chunk := stream.read(size):
            found += chunk
        assert found == rb'a\""b\nc\"' + b"\\", size


def test_a_stray_quote_far_into_a_file(tmp_path: Path, reading: Read) -> None:
    rows = [f'"text ""{n}"" {"x" * 90}",a' for n in range(40_000)]
    assert sum(map(len, rows)) > 3 * BLOCK
    rows[35_000] = f'"text {"x" * 90},a'
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]))
    with pytest.raises(DataError, match=r"a\.csv row 35001 begins with a quote"):
        reading(tmp_path / "a.csv")
