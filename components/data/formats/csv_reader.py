"""CSV and TSV reader: every column is read as text, since the type of the labels is inferred over all rows later."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv

from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns, from_text
from raypath.components.data.formats.parse_errors import BLOCK, not_utf8
from raypath.components.data.sources.files import DataFile, open_bytes
from raypath.components.data.streaming.parquet import GROUP_ROWS


def csv_rows(file: DataFile, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """Yield (row, table), rows counted from 1 below the header. Raises DataError for a row of the wrong width."""
    invalid: list[Any] = []
    names = list(columns.selected())
    row = 1
    with open_bytes(file.path) as raw:
        try:
            for batch in _open(file, raw, columns, invalid):
                table = pa.Table.from_batches([batch]).rename_columns(names)
                for start in range(0, table.num_rows, GROUP_ROWS):
                    yield row + start, from_text(columns, table.slice(start, GROUP_ROWS))
                row += table.num_rows
        except pa.ArrowInvalid:
            if invalid:
                raise _wrong_width(file, invalid[0]) from None
            raise


def csv_columns(file: DataFile) -> list[str]:
    """Read the column names from the header."""
    with open_bytes(file.path) as raw:
        start = raw.read(BLOCK)
    # The last character may be cut off; a header without an end would fill the memory.
    text = codecs.getincrementaldecoder("utf-8-sig")().decode(start, final=len(start) < BLOCK)
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(file)), [])
    except csv.Error:
        raise DataError(f"the header of {file.name} cannot be parsed", fix="write the file again") from None


def _open(file: DataFile, raw: Any, columns: Columns, invalid: list[Any]) -> Any:
    def reject(row: Any) -> str:
        invalid.append(row)
        return "error"

    names = list(columns.selected().values())
    return pyarrow.csv.open_csv(
        raw,
        # Arrow numbers rows only with a single thread.
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=_delimiter(file), newlines_in_values=True, invalid_row_handler=reject
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=names, column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )


def _delimiter(file: DataFile) -> str:
    """Tab for .tsv, otherwise a comma; a semicolon or tab if the header has no comma, as spreadsheets export."""
    if file.format == "tsv":
        return "\t"
    with open_bytes(file.path) as raw:
        line = raw.readline(BLOCK)
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise not_utf8(file)
    return next((delimiter for delimiter in (",", ";", "\t") if delimiter.encode() in line), ",")


def _wrong_width(file: DataFile, row: Any) -> DataError:
    # Arrow counts the header as row 1.
    return DataError(
        f"{file.name} row {row.number - 1} has {row.actual_columns} columns; wanted {row.expected_columns}",
        fix="quote values that contain the separator, and close every quote",
    )
