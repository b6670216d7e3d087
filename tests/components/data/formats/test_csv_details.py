"""Headers, separators and quotes of CSV files, by small cases."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError
from raypath.components.data.formats.csv.header import Header, read_header
from raypath.components.data.formats.csv.quotes import BackslashQuotes, IrregularQuote, QuoteCheck, quote_error
from raypath.components.data.sources.data_file import DataFile, FileSettings


def _file(folder: Path, data: bytes, name: str = "a.csv", **settings: Any) -> DataFile:
    (folder / name).write_bytes(data)
    return DataFile(folder / name, "tsv" if name.endswith("tsv") else "csv", settings=FileSettings(**settings))


@pytest.mark.parametrize(
    ("data", "wanted", "delimiter", "names"),
    [
        (b"a,b\n1,2\n", (), ",", ["a", "b"]),
        (b"a;b,c\n1;2\n", (), ";", ["a", "b,c"]),
        (b"a\tb\n1\t2\n", (), "\t", ["a", "b"]),
        (b"a|b\n1|2\n", (), "|", ["a", "b"]),
        (b"a\n1,2\n", (), ",", ["a"]),
        (b"a,b;c\n1,2;3\n", ("b;c",), ",", ["a", "b;c"]),
        (b"a,b;c\n1,2;3\n", ("a,b",), ";", ["a,b", "c"]),
        (b"a,b;c\n1,2;3\n", (), ",", ["a", "b;c"]),
        (b'"a;b",c\n1,2\n', (), ",", ["a;b", "c"]),
        (b"\n\n a , b \n1,2\n", (), ",", ["a", "b"]),
        (b"sep=|\na,b|c\n1|2\n", (), "|", ["a,b", "c"]),
        (b"sep=x\na,b\n", (), ",", ["sep=x"]),
        (b"", (), ",", []),
    ],
)
def test_headers(tmp_path: Path, data: bytes, wanted: tuple[str, ...], delimiter: str, names: list[str]) -> None:
    file = _file(tmp_path, data)
    if not names:
        with pytest.raises(DataError, match=r"^the header of a\.csv cannot be parsed; write the file again$"):
            read_header(file, wanted)
        return
    found = read_header(file, wanted)
    assert (found.delimiter, found.names) == (delimiter, names)


def test_headers_by_the_settings(tmp_path: Path) -> None:
    assert read_header(_file(tmp_path, b"a,b;c\n", delimiter=";")).names == ["a,b", "c"]
    assert read_header(_file(tmp_path, b"a,b\n", "a.tsv")).names == ["a,b"]
    assert read_header(_file(tmp_path, b'"a,b",c\n1,2\n', quotes="none")).names == ['"a', 'b"', "c"]
    header = Header(",", (" a ", "b", "a"))
    assert header.as_written(["a", "b", "x"]) == [" a ", "b", "x"], "the first of two"
    for first, encoding in ((b"a\0,\0b\0\n\0", "utf-16-le"), (b"\0a\0,\0b\0\n", "utf-16-be")):
        with pytest.raises(DataError, match=rf"^a\.csv looks like UTF-16; set -s read\.encoding={encoding}$"):
            read_header(_file(tmp_path, first))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b'a,b\n"x",y\n"x ""y""",z\n5" disk,z\n', None),
        (b'a,b\n"x\ny",z\n', None),
        (b'a,b\nok,x\n\n"x" y,z\n', (2, False)),
        (b'a,b\n"x \\" y",z\n', (1, True)),
        (b'a,b\nok,x\n"x,z\n', (2, False)),
        (b'a,b\n"x" y,z\n', (1, False)),
        (b'a,b\nx,""y"\n', (1, False)),
        (b'a,b\nx,""""\n', None),
    ],
)
def test_irregular_quotes(tmp_path: Path, data: bytes, wanted: tuple[int, bool] | None) -> None:
    file = _file(tmp_path, data)
    error = quote_error(file, ",")
    none = "; to read quotes as written, set -s read.quotes=none"
    if wanted is None:
        assert error is None
    elif wanted[1]:
        assert str(error) == (
            rf"a.csv row {wanted[0]} has \" in a quoted value; if \" stands for a quote, set -s read.quotes=backslash"
            + none
        )
    else:
        assert str(error) == (
            f"a.csv row {wanted[0]} begins with a quote that is not closed at the end of its value; "
            'double quotes within quoted values ("")' + none
        )
    for size in (1, 2, 3, 7, 1_000):
        check = QuoteCheck(io.BytesIO(data), ",")
        try:
            read = b"".join(iter(lambda check=check, size=size: check.read(size), b""))  # type: ignore[misc]
            assert (wanted, read, check.lines) == (None, data, data.count(b"\n")), size
        except IrregularQuote:
            assert wanted is not None, size


def test_lines_within_quotes_of_a_file_with_tabs(tmp_path: Path) -> None:
    file = _file(tmp_path, b'a\tb\n"x\ty\nz\tu"\n')
    assert str(quote_error(file, "\t", 2)).startswith("a.csv row 1 begins with a quote")
    assert quote_error(_file(tmp_path, b'a\tb\n"x\ny"\tz\n'), "\t", 2) is None
    assert quote_error(_file(tmp_path, b'a\tb\n"x y"\tz\n'), "\t", 2) is None


@pytest.mark.parametrize(
    ("data", "wanted"),
    [(rb"a\"b", b'a""b'), (rb"a\\b", rb"a\b"), (rb"a\nb", rb"a\nb"), (rb"a\\\"", b'a\\""'), (rb"a\ ", rb"a\ ")],
)
def test_backslashes(data: bytes, wanted: bytes) -> None:
    for size in (1, 2, 100):
        stream = BackslashQuotes(io.BytesIO(data))
        assert stream.readable()
        assert b"".join(iter(lambda stream=stream, size=size: stream.read(size), b"")) == wanted  # type: ignore[misc]
