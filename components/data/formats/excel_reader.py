"""Excel reader (.xlsx): the first row that is not blank has the column names, and cells become text as in CSV.

Rows are read one after another, with the values that Excel last computed for formulas.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa

from raypath.components.core.errors import DataError, UserError
from raypath.components.data.columns.schema import Columns, from_text
from raypath.components.data.formats.excel_book import open_book, rows_of_sheet
from raypath.components.data.formats.limits import BATCH_BYTES, too_long
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.streaming.parquet import GROUP_ROWS

Row = tuple[int, list[str]]


def excel_columns(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Read the column names of the sheet."""
    with _workbook(file) as book:
        return next((cells for _, cells in _rows(file, _sheet(file, book))), [])


def excel_rows(file: DataFile, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """Yield (row, table), rows counted from 1 below the header. Raises DataError for a cell with an error."""
    with _workbook(file) as book:
        sheet = _sheet(file, book)
        rows = _rows(file, sheet, columns.decimal)
        header_row, header = next(rows, (0, []))
        names = columns.selected()
        positions = {canonical: header.index(name) for canonical, name in names.items()}
        formulas = _Formulas(file, sheet.title)
        first, size, batch = 1, 0, list[list[str]]()
        for number, cells in rows:
            row = number - header_row
            # A blank row ends a batch: the rows behind it keep their numbers.
            if batch and (row != first + len(batch) or len(batch) == GROUP_ROWS or size > BATCH_BYTES):
                yield first, _table(columns, positions, batch)
                size, batch = 0, []
            if not batch:
                first = row
            chosen = [cells[position] if position < len(cells) else "" for position in positions.values()]
            if "" in chosen:
                empty = {
                    names[name]: at for (name, at), cell in zip(positions.items(), chosen, strict=True) if not cell
                }
                formulas.check(number, empty, row)
            _check_errors(file, list(names.values()), chosen, row)
            batch.append(chosen)
            length = sum(map(len, chosen))
            if length > BATCH_BYTES:
                raise too_long(file, row)
            size += length
        if batch:
            yield first, _table(columns, positions, batch)


class _Formulas:
    """Formulas of a sheet, read beside its values from the first empty cell on: the cell may have no computed value."""

    def __init__(self, file: DataFile, sheet: str) -> None:
        self._file, self._sheet = file, sheet
        self._rows: Iterator[tuple[int, Sequence[Any]]] | None = None

    def check(self, number: int, empty: Mapping[str, int], row: int) -> None:
        """Raise DataError if one of the empty cells is a formula. number: of the row in the sheet, from 1."""
        if self._rows is None:
            self._rows = rows_of_sheet(self._file, open_book(self._file, data_only=False)[self._sheet])
        cells: Sequence[Any] = next(cells for n, cells in self._rows if n == number)
        for name, position in empty.items():
            if position < len(cells) and cells[position] is not None and str(cells[position]).strip():
                what = f"{self._file.name}: column {name} has a formula without a value in row {row}"
                raise DataError(what, fix="open the file in Excel and save it, or save it as csv")


def _table(columns: Columns, names: Collection[str], rows: list[list[str]]) -> pa.Table:
    values = zip(*rows, strict=True)
    return from_text(columns, pa.table({name: pa.array(each) for name, each in zip(names, values, strict=True)}))


@contextmanager
def _workbook(file: DataFile) -> Generator[Any, None, None]:
    try:
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        raise UserError(f"{file.name} needs the extra excel", fix="pip install 'raypath[excel]'") from None
    unreadable = DataError(f"{file.name} is not an Excel file, or is damaged", fix="save it again as .xlsx, or as csv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts that are not read, such as conditional formats
        try:
            book = open_book(file, data_only=True)
        except (InvalidFileException, LookupError, ValueError, SyntaxError, TypeError, AttributeError):
            raise unreadable from None
        with closing(book):
            try:
                yield book
            except (SyntaxError, ValueError, IndexError, OverflowError) as error:  # XML of a sheet
                raise unreadable from error


def _sheet(file: DataFile, book: Any) -> Any:
    """Return the sheet of the settings, else the only one with rows. Raises DataError if there are several."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    name = file.settings.sheet
    if name:
        if name not in sheets:
            raise DataError(f"{file.name} has no sheet {name}", fix=f"set -s read.sheet= to one of {', '.join(sheets)}")
        return sheets[name]
    filled = [sheet for sheet in sheets.values() if sheet.sheet_state == "visible" and any(_rows(file, sheet))]
    if len(filled) > 1:
        titles = ", ".join(sheet.title for sheet in filled)
        raise DataError(f"{file.name} has several sheets with rows", fix=f"set -s read.sheet= to one of {titles}")
    if not filled:
        raise DataError(f"{file.name} has no rows", fix="name a hidden sheet with -s read.sheet=NAME, or save it again")
    return filled[0]


def _rows(file: DataFile, sheet: Any, decimal: str = ".") -> Iterator[Row]:
    """Yield (number, cells as text) of the rows that are not blank. decimal: sign that numbers are written with."""
    for number, cells in rows_of_sheet(file, sheet):
        row = [_text(value, decimal) for value in cells]
        if any(map(str.strip, row)):
            yield number, row


def _text(value: Any, decimal: str) -> str:
    """Format a value as CSV would have it: 3.0 is 3, a day without a time is a date, true and false are words."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value).replace(".", decimal)
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == dt.time() else value.isoformat(sep=" ")
    return str(value)


_ERRORS = {"#N/A", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?", "#NULL!", "#NUM!"}


def _check_errors(file: DataFile, names: Sequence[str], cells: Sequence[str], row: int) -> None:
    for name, cell in zip(names, cells, strict=True):
        if cell in _ERRORS:
            what = f"{file.name}: column {name} has the error {cell} in row {row} (header not counted)"
            raise DataError(what, fix="correct or empty the cell")
