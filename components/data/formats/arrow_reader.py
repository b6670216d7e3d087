"""Readers of record batches: Arrow files, as Hugging Face's `datasets` saves them, and live rows of Delta tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from raypath.components.core.errors import DataError, UserError
from raypath.components.data.columns.nested import columns_of, field_names
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.arrow_checks import check_compression, check_structure, slices
from raypath.components.data.formats.parquet_reader import (
    ROWS,
    canonical_table,
    check_inflation,
    decoded,
    joined_batches,
)
from raypath.components.data.sources.class_names import class_names
from raypath.components.data.sources.data_file import DataFile

NumberedTables = Iterator[tuple[int, pa.Table]]
_FILE_MAGIC = b"ARROW1"


def arrow_columns(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Read the column names of an IPC file or stream."""
    with pa.memory_map(str(file.path)) as source:
        return field_names(_open(source).schema, wanted)


def arrow_rows(file: DataFile, columns: Columns) -> NumberedTables:
    """Yield (row, table) of an IPC file or stream, which is mapped into memory."""
    row = 1
    with pa.memory_map(str(file.path)) as source:
        _seek(source)
        check_compression(file, source)
        stream = _open(source)
        names, classes = columns_of(stream.schema, columns.selected().values()), class_names(stream.schema, columns)
        for each in stream:
            batch = each.select(names)
            check_structure(file, batch)
            for first, rows in slices(file, batch, row):
                table = pa.Table.from_batches([batch.slice(first, rows)])
                yield row + first, canonical_table(file, columns, table, classes, row + first)
            row += batch.num_rows


def _open(source: Any) -> Any:
    """Open the stream that an IPC file has behind its first bytes; its index could name other batches."""
    _seek(source)
    return pa.ipc.open_stream(source)


def _seek(source: Any) -> None:
    source.seek(0)
    source.seek(8 if source.read(len(_FILE_MAGIC)) == _FILE_MAGIC else 0)


def delta_columns(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Read the column names of a Delta table, those of its partitions included."""
    return field_names(_delta(file).schema, wanted)


def delta_rows(file: DataFile, columns: Columns) -> NumberedTables:
    """Yield (row, table) of the live rows of a Delta table, in the version that was newest when it was found."""
    data = _delta(file)
    try:
        yield from _live_rows(file, columns, data)
    except OSError:
        what = f"{file.name}: a file of version {file.version} is missing or cannot be read"
        raise DataError(what, fix="run the command again when no vacuum runs, or check the permissions") from None


def _live_rows(file: DataFile, columns: Columns, data: Any) -> NumberedTables:
    wanted = set(columns_of(data.schema, columns.selected().values()))
    schema = pa.schema([field for field in data.schema if field.name in wanted])
    batches = (batch for fragment in data.get_fragments() for batch in _batches(file, schema, fragment))
    classes = class_names(data.schema, columns)
    for row, joined in joined_batches(file, batches):
        yield row, canonical_table(file, columns, joined, classes, row)


def _batches(file: DataFile, schema: pa.Schema, fragment: Any) -> Iterator[pa.RecordBatch]:
    """Read a Parquet file of a Delta table in small batches of the table's schema.

    Not by a scanner of pyarrow.dataset, which decodes a row group as a whole.
    """
    constants = pa.dataset.get_partition_keys(fragment.partition_expression)
    options: dict[str, Any] = {"pre_buffer": False, "buffer_size": 1 << 20, "coerce_int96_timestamp_unit": "us"}
    with fragment.open() as opened, pq.ParquetFile(opened, **options) as source:
        names = [name for name in schema.names if name in source.schema_arrow.names]
        check_inflation(file, source.metadata, names)
        for batch in map(decoded, source.iter_batches(ROWS, columns=names, use_threads=False)):
            # Values of partitions are in the log only, and a file may be older than a column.
            arrays = [
                batch.column(field.name).cast(field.type)
                if field.name in names
                else pa.repeat(pa.scalar(constants.get(field.name), field.type), batch.num_rows)
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _delta(file: DataFile) -> Any:
    try:
        import deltalake
    except ImportError:
        what = f"{file.name} is a Delta table, which needs the extra delta"
        raise UserError(what, fix="pip install 'raypath[delta]'") from None
    from deltalake.exceptions import DeltaError

    try:
        live = deltalake.DeltaTable(str(file.path), version=file.version).to_pyarrow_dataset()
    except DeltaError as error:
        what = f"Delta table {file.name} cannot be read ({str(error).splitlines()[0][:120]})"
        fix = "write a copy without this feature, such as deletion vectors"
        raise DataError(what, fix=fix) from None
    # The log's order changes when it is compacted.
    fragments = sorted(live.get_fragments(), key=lambda fragment: str(fragment.path))
    return pa.dataset.FileSystemDataset(fragments, live.schema, live.format, live.filesystem)
