"""Header and separator of a CSV file."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from raypath.components.core.errors import DataError
from raypath.components.data.formats.parse_errors import BLOCK
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.sources.streams import open_bytes

_DELIMITERS = ",;\t|"
_ROWS = 20
"""Rows that are compared to find the separator."""


@dataclass(frozen=True)
class Header:
    """Separator of a file, and its column names as written; `names` are without the spaces around them."""

    delimiter: str
    written: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [name.strip() for name in self.written]

    def as_written(self, names: Iterable[str]) -> list[str]:
        """Return columns' names as the file has them."""
        written = {name.strip(): name for name in reversed(self.written)}
        return [written.get(name, name) for name in names]


def open_csv(file: DataFile) -> tuple[IO[bytes], str]:
    """Open a file behind the line `sep=;` that Excel understands; returns the stream and that separator, else ""."""
    raw = open_bytes(file)
    start = raw.peek(6)[:6]  # type: ignore[attr-defined]
    if not re.fullmatch(rb"sep=[^\w\s][\r\n]", start):
        return raw, ""
    raw.readline()
    return raw, chr(start[4])


def read_header(file: DataFile, wanted: Collection[str] = ()) -> Header:
    """Read the column names and find the separator: outside quotes, the same in all rows, best with these columns."""
    raw, given = open_csv(file)
    with raw:
        start = raw.read(BLOCK)
    # The last character may be cut off; a header without an end would fill the memory.
    text = codecs.getincrementaldecoder("utf-8")().decode(start, final=len(start) < BLOCK)
    delimiters = file.settings.delimiter or given or ("\t" if file.format == "tsv" else _DELIMITERS)
    rows = {delimiter: _rows(text, delimiter, file.settings.quotes) for delimiter in delimiters}
    first = {delimiter: Header(delimiter, tuple(each[0]) if each else ()) for delimiter, each in rows.items()}
    if not any(rows.values()) or len(delimiters) == 1:
        return _checked(file, first[delimiters[0]])
    several = [delimiter for delimiter in delimiters if len(first[delimiter].names) > 1]
    even = [delimiter for delimiter in several if len({len(row) for row in rows[delimiter]}) == 1]
    named = [delimiter for delimiter in several if set(wanted) <= set(first[delimiter].names)]
    return _checked(file, first[next(iter([*(named if wanted else []), *even, *several]), ",")])


def _rows(text: str, delimiter: str, quotes: str) -> list[list[str]]:
    """Return the first rows that are not blank; a row that cannot be parsed ends them."""
    quoting: Any = csv.QUOTE_NONE if quotes == "none" else csv.QUOTE_MINIMAL
    rows = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
        for row in islice(filter(None, reader), _ROWS):
            rows.append(row)
    except csv.Error:
        pass
    return rows


def _checked(file: DataFile, header: Header) -> Header:
    if not header.written:
        raise DataError(f"the header of {file.name} cannot be parsed", fix="write the file again")
    return header
