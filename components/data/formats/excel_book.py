"""Workbook whose size in memory is bounded: its parts are checked, and rows are parsed one after another.

openpyxl keeps what it has parsed of a sheet, fills gaps between rows, and reads other parts whole; a file of a few
kilobytes can stand for gigabytes of each.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import IO, Any, cast

from raypath.components.core.errors import DataError
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.sources.streams import METHODS

ROWS = 1 << 20
"""Rows of a sheet in Excel."""
ROW_BYTES = 16 << 20
"""Maximum XML of one row."""
STRING_BYTES = 512 << 20
"""Maximum XML of the texts of a workbook, of which each different one is kept in memory."""
PART_BYTES = 16 << 20
"""Maximum size of another part, such as the styles, which is read whole."""
_AS_CSV = "save the sheet as csv, which is read row by row"
Row = tuple[int, list[Any]]


def open_book(file: DataFile, data_only: bool) -> Any:
    """Open a workbook as openpyxl does in read-only mode. data_only: values of formulas instead of the formulas."""
    from openpyxl.reader.excel import ExcelReader
    from openpyxl.xml.constants import SHARED_STRINGS

    class Reader(ExcelReader):  # type: ignore[misc]
        """Reader of what rows need: texts, styles for dates, sheets."""

        def __init__(self) -> None:
            super().__init__(file.path, read_only=True, data_only=data_only, keep_links=False)
            self.archive.close()  # type: ignore[has-type]
            self.archive = _Parts(file)

        def read_strings(self) -> None:
            part = self.package.find(SHARED_STRINGS)
            if part is not None:
                with self.archive.open(part.PartName[1:]) as source:
                    self.shared_strings = _strings(
                        _Bounded(file, source, STRING_BYTES, "more texts than fit in memory")
                    )

        def read_chartsheet(self, sheet: Any, rel: Any) -> None: ...
        def read_properties(self) -> None: ...
        def read_custom(self) -> None: ...
        def read_theme(self) -> None: ...

    reader = Reader()
    reader.read()
    return reader.wb


def rows_of_sheet(file: DataFile, sheet: Any) -> Iterator[Row]:
    """Yield (number from 1, values) of the rows that the file has; what follows the rows is not read."""
    from openpyxl.worksheet._reader import WorkSheetParser

    book, last = sheet.parent, 0
    with book._archive.open(sheet._worksheet_path) as part:
        source = _Bounded(file, part, ROW_BYTES, "a row that is too long")
        formats = {"date_formats": book._date_formats, "timedelta_formats": book._timedelta_formats}
        options = {"data_only": book._data_only, "epoch": book.epoch, **formats}
        parser = WorkSheetParser(source, sheet._shared_strings, **options)
        for element in _rows(source):
            number, cells = parser.parse_row(element)
            parser.row_dimensions.clear()
            parser.shared_formulae.clear()
            if not last < number <= ROWS:
                raise DataError(f"{file.name} has a row numbered {number} behind row {last}", fix=_AS_CSV)
            last, source.taken = number, 0
            values = [None] * max((cell["column"] for cell in cells), default=0)
            for cell in cells:
                values[cell["column"] - 1] = cell["value"]
            yield number, values


class _Parts(zipfile.ZipFile):
    """Parts of a workbook."""

    def __init__(self, file: DataFile) -> None:
        super().__init__(file.path)
        self._file = file
        if any(info.compress_type not in METHODS for info in self.infolist()):
            raise DataError(
                f"{file.name} has an unsupported compression method", fix="save it again as .xlsx, or as csv"
            )

    def read(self, name: Any, pwd: bytes | None = None) -> bytes:
        """Read a part. Raises DataError for a large one."""
        if self.getinfo(name).file_size > PART_BYTES:
            raise DataError(f"{self._file.name} has a part of more than {PART_BYTES >> 20} MiB", fix=_AS_CSV)
        return super().read(name, pwd)


class _Bounded:
    """Stream that raises DataError after `most` bytes; `taken` may be set back."""

    def __init__(self, file: DataFile, raw: IO[bytes], most: int, what: str) -> None:
        self._error = DataError(f"{file.name} has {what}: {most >> 20} MiB of XML", fix=_AS_CSV)
        self._raw, self._most, self.taken = raw, most, 0

    def read(self, size: int = -1) -> bytes:
        """Read at most 64 KiB."""
        chunk = self._raw.read(min(size, 1 << 16) if size > 0 else 1 << 16)
        self.taken += len(chunk)
        if self.taken > self._most:
            raise self._error
        return chunk


def _rows(source: _Bounded) -> Iterator[Any]:
    """Yield the row elements of a sheet; each is forgotten before the next."""
    from openpyxl.worksheet._reader import DATA_TAG, ROW_TAG

    return (element for element in _elements(source, 2, DATA_TAG) if element.tag == ROW_TAG)


def _strings(source: _Bounded) -> list[str]:
    """Read the table of texts; equal ones are stored once."""
    from openpyxl.cell.text import Text
    from openpyxl.xml.constants import SHEET_MAIN_NS

    found: list[str] = []
    known: dict[str, str] = {}
    for element in _elements(source, 1):
        if element.tag == f"{{{SHEET_MAIN_NS}}}si":
            text = Text.from_tree(element).content.replace("x005F_", "")
            found.append(known.setdefault(text, text))
    return found


def _elements(source: _Bounded, level: int, within: str = "") -> Iterator[Any]:
    """Yield the elements of a level (0 is the root), and remove each; in the first element `within`, if it is given."""
    from openpyxl.xml.functions import iterparse

    above: list[Any] = []
    for event, element in iterparse(cast(io.RawIOBase, source), events=("start", "end")):
        if event == "start":
            above.append(element)
            continue
        above.pop()
        if within and element.tag == within:
            return
        if len(above) == level:
            if above[-1].tag == (within or above[-1].tag):
                yield element
            above[-1].remove(element)
