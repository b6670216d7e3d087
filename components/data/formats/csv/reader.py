"""CSV and TSV reader: every column is read as text, since the type of the labels is inferred over all rows later."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.csv

from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns, from_text
from raypath.components.data.formats.csv.header import Header, open_csv, read_header
from raypath.components.data.formats.csv.quotes import BackslashQuotes, IrregularQuote, QuoteCheck, quote_error
from raypath.components.data.formats.parse_errors import BLOCK
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.streaming.parquet import GROUP_ROWS


def csv_columns(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Read the column names from the header, without spaces around them."""
    return read_header(file, wanted).names


def csv_rows(file: DataFile, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """Yield (row, table), rows counted from 1 below the header.

    Raises DataError for a row of the wrong width, and for a quote that would swallow other rows.
    """
    header = read_header(file, set(columns.selected().values()))
    invalid: list[Any] = []
    row = 1
    with open_csv(file)[0] as raw:
        checked = _checked(file, raw, header)
        try:
            for batch in _open(file, checked, header, columns, invalid):
                table = pa.Table.from_batches([batch]).rename_columns(list(columns.selected()))
                for start in range(0, table.num_rows, GROUP_ROWS):
                    yield row + start, from_text(columns, table.slice(start, GROUP_ROWS))
                row += table.num_rows
        except (IrregularQuote, pa.ArrowInvalid):
            error = quote_error(file, header.delimiter) if isinstance(checked, QuoteCheck) else None
            if error is not None:
                raise error from None
            if invalid:
                raise _wrong_width(file, invalid[0], header.delimiter) from None
            raise
    # Values with line ends; or with tabs and line ends, which were rows.
    if header.delimiter == "\t" and isinstance(checked, QuoteCheck) and checked.lines > row:
        joined = quote_error(file, "\t", len(header.written))
        if joined is not None:
            raise joined


def _checked(file: DataFile, raw: IO[bytes], header: Header) -> IO[bytes]:
    if file.settings.quotes == "none":
        return raw
    source = cast(IO[bytes], BackslashQuotes(raw)) if file.settings.quotes == "backslash" else raw
    return cast(IO[bytes], QuoteCheck(source, header.delimiter))


def _open(file: DataFile, raw: Any, header: Header, columns: Columns, invalid: list[Any]) -> Any:
    def reject(row: Any) -> str:
        invalid.append(row)
        return "error"

    names = header.as_written(columns.selected().values())
    quoted = file.settings.quotes != "none"
    return pyarrow.csv.open_csv(
        raw,
        # Arrow numbers rows only with a single thread.
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=header.delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            invalid_row_handler=reject,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=names, column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )


def _wrong_width(file: DataFile, row: Any, delimiter: str) -> DataError:
    # Arrow counts the header as row 1.
    what = f"{file.name} row {row.number - 1} has {row.actual_columns} columns; wanted {row.expected_columns}"
    if '\\"' in row.text:
        fix = r"if \" stands for a quote, set -s read.quotes=backslash; else quote values that contain the separator"
        return DataError(what + r" and it has \"", fix=fix)
    if row.actual_columns > row.expected_columns and row.text.rstrip("\r\n").endswith(delimiter):
        return DataError(what, fix="remove the separator at the end of rows, or add it to the header")
    return DataError(what, fix="quote values that contain the separator, and close every quote")
