"""CSV and TSV: every column as text, so that types are settled over all rows and never guessed from the first ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv

from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns, untyped
from raypath.components.data.formats.parse_errors import BLOCK, not_utf8
from raypath.components.data.sources.files import DataFile, open_bytes
from raypath.components.data.streaming.parquet import GROUP_ROWS


def csv_rows(file: DataFile, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """(row, table) with rows counted from 1 below the header. Raises DataError for a row of the wrong width."""
    broken: list[Any] = []
    names = list(columns.wanted())
    row = 1
    with open_bytes(file.path) as raw:
        try:
            for batch in _open(file, raw, columns, broken):
                table = pa.Table.from_batches([batch]).rename_columns(names)
                for start in range(0, table.num_rows, GROUP_ROWS):
                    yield row + start, untyped(columns, table.slice(start, GROUP_ROWS))
                row += table.num_rows
        except pa.ArrowInvalid:
            if broken:
                raise _malformed(file, broken[0]) from None
            raise


def csv_columns(file: DataFile) -> list[str]:
    """The names in the header."""
    with open_bytes(file.path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        try:
            return next(csv.reader(text, delimiter=_delimiter(file)), [])
        except csv.Error:
            raise DataError(f"the header of {file.name} cannot be parsed", fix="write the file again") from None


def _open(file: DataFile, raw: Any, columns: Columns, broken: list[Any]) -> Any:
    def refuse(row: Any) -> str:
        broken.append(row)
        return "error"

    wanted = list(columns.wanted().values())
    return pyarrow.csv.open_csv(
        raw,
        # One thread, since only then the rows have numbers.
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=_delimiter(file), newlines_in_values=True, invalid_row_handler=refuse
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=wanted, column_types={name: pa.string() for name in wanted}, strings_can_be_null=False
        ),
    )


def _delimiter(file: DataFile) -> str:
    """Tab for .tsv, else comma; semicolon or tab where the header has no comma, as spreadsheets write it."""
    if file.format == "tsv":
        return "\t"
    with open_bytes(file.path) as raw:
        line = raw.readline(BLOCK)
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise not_utf8(file)
    return next((mark for mark in (",", ";", "\t") if mark.encode() in line), ",")


def _malformed(file: DataFile, row: Any) -> DataError:
    # Arrow counts the header as row 1.
    return DataError(
        f"{file.name} row {row.number - 1} has {row.actual_columns} columns; wanted {row.expected_columns}",
        fix="quote values that hold the separator, and close every quote",
    )
