"""Parquet reader with bounded memory: a file of a few kilobytes can stand for gigabytes of text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypath.components.core.errors import DataError
from raypath.components.data.columns.nested import columns_of, field_names, field_of
from raypath.components.data.columns.schema import Columns, from_arrow
from raypath.components.data.formats.arrow_checks import INFLATION
from raypath.components.data.formats.limits import BATCH_BYTES, check_text, too_long
from raypath.components.data.formats.parse_errors import readable
from raypath.components.data.sources.class_names import ClassNames, class_names, with_names
from raypath.components.data.sources.data_file import DataFile, RowGroups
from raypath.components.data.streaming.parquet import GROUP_ROWS

ROWS = 32
"""Rows that are decoded at once. A dictionary may stand for the same long text in every row."""
PART_BYTES = 16 << 20
"""Size from which a part of a file is worth a task of its own."""


def parquet_columns(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Read the column names."""
    return field_names(pq.read_schema(file.path), wanted)


def parquet_rows(file: DataFile, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """Yield (row, table) of at most BATCH_BYTES. Raises DataError for a row or a row group that exceeds the limits."""
    # pre_buffer would load a whole row group, and other writers put a million rows into one.
    with pq.ParquetFile(file.path, pre_buffer=False, buffer_size=1 << 20) as source:
        wanted = columns_of(source.schema_arrow, columns.selected().values())
        groups = range(source.num_row_groups) if file.groups is None else range(file.groups.first, file.groups.end)
        check_inflation(file, source.metadata, wanted, groups)
        batches = source.iter_batches(ROWS, row_groups=list(groups), columns=wanted, use_threads=False)
        if any(pa.types.is_dictionary(field.type) for field in source.schema_arrow):
            batches = map(decoded, batches)
        classes = class_names(source.schema_arrow, columns)
        for row, joined in joined_batches(file, batches, file.groups.row if file.groups else 1):
            yield row, canonical_table(file, columns, joined, classes, row)


def parquet_objects(file: DataFile) -> Iterator[dict[str, Any]]:
    """Yield the rows with all columns as Python objects. Raises DataError as above."""
    with pq.ParquetFile(file.path, pre_buffer=False, buffer_size=1 << 20) as source:
        check_inflation(file, source.metadata, source.schema_arrow.names)
        batches = map(decoded, source.iter_batches(ROWS, use_threads=False))
        for _, table in joined_batches(file, batches):
            yield from table.to_pylist()


def canonical_table(file: DataFile, columns: Columns, table: pa.Table, classes: ClassNames, row: int) -> pa.Table:
    """Convert the selected columns of a typed table. Raises DataError for text that is not UTF-8, with its row."""
    selected = {}
    for canonical, name in columns.selected().items():
        column = field_of(table, name)
        check_text(file, column, row)
        selected[canonical] = with_names(file, column, classes.get(name), row)
    return from_arrow(file, columns, pa.table(selected))


def divided(file: DataFile) -> list[DataFile]:
    """Divide a large Parquet file by row groups into parts of PART_BYTES or more; other files are returned whole."""
    if file.format != "parquet" or file.size < 2 * PART_BYTES:
        return [file]
    with readable(file):
        metadata = pq.read_metadata(file.path)
    found: list[DataFile] = []
    first, row, size, rows = 0, 1, 0, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size += sum(group.column(n).total_compressed_size for n in range(group.num_columns))
        rows += group.num_rows
        if size >= PART_BYTES or number == metadata.num_row_groups - 1:
            found.append(replace(file, groups=RowGroups(first, number + 1, row, size)))
            first, row, size, rows = number + 1, row + rows, 0, 0
    return found if len(found) > 1 else [file]


def check_inflation(file: DataFile, metadata: Any, wanted: list[str], groups: Iterable[int] | None = None) -> None:
    """Raise DataError for a row group that is large by the file's own figures and tiny in the file."""
    for number in range(metadata.num_row_groups) if groups is None else groups:
        group = metadata.row_group(number)
        chunks = [group.column(n) for n in range(group.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in wanted]
        unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
        if unpacked > BATCH_BYTES and unpacked > INFLATION * sum(chunk.total_compressed_size for chunk in chunks):
            what = f"{file.name} expands more than {INFLATION:,}-fold, to {unpacked / 2**20:,.0f} MiB"
            raise DataError(what, fix="check where it comes from; a correct file can be written as csv or jsonl")


def joined_batches(file: DataFile, batches: Iterator[pa.RecordBatch], row: int = 1) -> Iterator[tuple[int, pa.Table]]:
    """Join batches to tables of GROUP_ROWS rows, or fewer that have BATCH_BYTES, each with the number of its first row.

    row: number of the first row of all.
    """
    first, rows, size = row, 0, 0
    held: list[pa.RecordBatch] = []
    for batch in batches:
        taken = batch.get_total_buffer_size()  # `nbytes` takes as long as the decoding
        if taken > BATCH_BYTES:
            _check_rows(file, batch, first + rows)
        held.append(batch)
        rows += batch.num_rows
        size += taken
        if rows >= GROUP_ROWS or size > BATCH_BYTES:
            yield first, pa.Table.from_batches(held).combine_chunks()
            first, rows, size, held = first + rows, 0, 0, []
    if held:
        yield first, pa.Table.from_batches(held).combine_chunks()


def _check_rows(file: DataFile, batch: pa.RecordBatch, first: int) -> None:
    """Raise DataError for a text that is longer than a row may be. first: number of the batch's first row."""
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            for number, length in enumerate(pc.binary_length(column).to_pylist(), first):
                if (length or 0) > BATCH_BYTES:
                    raise too_long(file, number)


def decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Give every row its own value, as in the tables that are made of the batch: its size is then the true one."""
    for position, field in enumerate(batch.schema):
        if pa.types.is_dictionary(field.type):
            batch = batch.set_column(position, field.name, batch.column(position).cast(field.type.value_type))
    return batch
