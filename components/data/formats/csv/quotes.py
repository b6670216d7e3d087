r"""Quotes in CSV: check that every quoted value is closed where it ends, and translate backslash escapes.

A parser that meets `"great movie` at the beginning of a value takes everything up to the next quote for one value, and
rows vanish. Quotes inside an unquoted value, as in `5" disk`, are read as written.
"""

from __future__ import annotations

import io
import re
from typing import IO

import numpy as np

from raypath.components.core.errors import DataError
from raypath.components.data.formats.csv.header import open_csv
from raypath.components.data.sources.data_file import DataFile

_QUOTE = 34
_LINE = 1 << 20


class IrregularQuote(Exception):
    """A quoted value that does not end before a separator or the end of a row."""


class QuoteCheck(io.RawIOBase):
    """Stream that checks the quotes of the bytes that pass. Raises IrregularQuote.

    In regular files opening and closing quotes alternate, a doubled quote being both; a whole chunk is then checked at
    once. Other chunks are checked quote by quote.
    """

    def __init__(self, raw: IO[bytes], delimiter: str) -> None:
        self._raw = raw
        self._around = np.zeros(256, dtype=bool)
        self._around[[_QUOTE, 10, 13, *delimiter.encode()]] = True
        self._tail = b"\n"  # the byte before the next chunk, and a quote whose next byte is unknown
        self._inside = self._closed = False
        self.lines = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        chunk = self._raw.read(size)
        self.lines += chunk.count(b"\n")
        if chunk and self._tail[-1] != _QUOTE and b'"' not in chunk:
            self._tail = chunk[-1:]
        elif size:
            self._check(self._tail + (chunk or b"\n"), final=not chunk)
        return chunk

    def _check(self, data: bytes, final: bool) -> None:
        bytes_ = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(bytes_[1:-1] == _QUOTE) + 1
        before, after = bytes_[quotes - 1], bytes_[quotes + 1]
        first = int(self._inside)
        literal_before = data[0] == _QUOTE and not self._closed
        opens, closes = self._around[before[first::2]], self._around[after[1 - first :: 2]]
        if literal_before or not (opens.all() and closes.all()):
            self._check_each(zip(before.tolist(), after.tolist(), strict=True))
        elif len(quotes):
            self._inside = (first + len(quotes)) % 2 == 1
            self._closed = not self._inside
        if final and self._inside:
            raise IrregularQuote
        self._tail = data[-2:] if data[-1] == _QUOTE else data[-1:]

    def _check_each(self, quotes: zip[tuple[int, int]]) -> None:
        for before, after in quotes:
            if self._inside:
                if not self._around[after]:
                    raise IrregularQuote
                self._inside, self._closed = False, True
            else:
                doubled = before == _QUOTE
                self._inside = self._closed if doubled else bool(self._around[before])
                self._closed = False


class BackslashQuotes(io.RawIOBase):
    r"""Stream that writes `\"` as a doubled quote and `\\` as one backslash; other backslashes are kept."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._rest = raw, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        chunk = self._raw.read(size)
        data = self._rest + chunk
        odd = (len(data) - len(data.rstrip(b"\\"))) % 2 if chunk else 0
        self._rest = data[len(data) - odd :]
        done = data[: len(data) - odd]
        if chunk and not done:
            return self.read(size)
        return re.sub(rb'\\(["\\])', lambda match: b'""' if match[1] == b'"' else b"\\", done)


def quote_error(file: DataFile, delimiter: str, width: int = 0) -> DataError | None:
    """Find the first irregular quote and describe it; None if there is none.

    width: in a file separated by tabs, a quoted value whose lines all have so many columns counts as irregular too.
    """
    found = _find(file, delimiter, width)
    if found is None:
        return None
    row, escaped = found
    if escaped:
        what, first = r"has \" in a quoted value", r"if \" stands for a quote, set -s read.quotes=backslash"
    else:
        what = "begins with a quote that is not closed at the end of its value"
        first = 'double quotes within quoted values ("")'
    return DataError(
        f"{file.name} row {row} {what}", fix=f"{first}; to read quotes as written, set -s read.quotes=none"
    )


def _find(file: DataFile, delimiter: str, width: int) -> tuple[int, bool] | None:
    r"""Return the row in which the irregular value begins, from 1 below the header, and if its end is \"."""
    starts = delimiter + "\r\n"
    row, opened, inside, closed, before = -1, 0, False, False, "\n"
    fits, several = True, False  # the lines of a row have `width` columns; there are several
    with open_csv(file)[0] as raw, io.TextIOWrapper(raw, "latin-1", newline="") as lines:
        for line in iter(lambda: lines.readline(_LINE), ""):
            if not inside and before in "\r\n":
                row += bool(line.strip("\r\n"))
                fits, several = True, False
            for match in re.finditer('"', line):
                position = match.start()
                last = line[position - 1] if position else before
                if inside:
                    following = line[position + 1 : position + 2]
                    if following and following not in starts + '"':
                        return opened, last == "\\"
                    inside, closed = False, True
                else:
                    inside = closed if last == '"' else last in starts
                    opened = row if inside and last != '"' else opened
                    closed = False
            before = line[-1]
            fits = fits and line.count(delimiter) == width - 1
            if several and fits and not inside:
                return opened, False
            several = True
    return (opened, False) if inside else None
