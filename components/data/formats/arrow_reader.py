"""Readers of record batches: Arrow files, as Hugging Face's `datasets` saves them, and live rows of Delta tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.dataset

from raypath.components.core.errors import DataError, UserError
from raypath.components.data.columns.nested import columns_of, field_names
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.limits import BATCH_BYTES
from raypath.components.data.formats.parquet_reader import canonical_table
from raypath.components.data.sources.class_names import class_names
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.streaming.parquet import GROUP_ROWS

NumberedTables = Iterator[tuple[int, pa.Table]]
_FILE_MAGIC = b"ARROW1"


def arrow_columns(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Read the column names of an IPC file or stream."""
    with pa.memory_map(str(file.path)) as source:
        return field_names(_open(file, source)[0], wanted)


def arrow_rows(file: DataFile, columns: Columns) -> NumberedTables:
    """Yield (row, table) of an IPC file or stream, which is mapped into memory."""
    with pa.memory_map(str(file.path)) as source:
        schema, batches = _open(file, source)
        yield from _tables(file, columns, schema, batches)


def _open(file: DataFile, source: Any) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if source.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
        reader = pa.ipc.open_file(source)
        return reader.schema, map(reader.get_batch, range(reader.num_record_batches))
    source.seek(0)
    stream = pa.ipc.open_stream(source)
    return stream.schema, iter(stream)


def _tables(file: DataFile, columns: Columns, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> NumberedTables:
    classes, row = class_names(schema, columns), 1
    names = columns_of(schema, columns.selected().values())
    for batch in batches:
        table = pa.Table.from_batches([batch]).select(names)
        step = max(1, min(GROUP_ROWS, GROUP_ROWS * BATCH_BYTES // max(table.nbytes, 1)))
        for start in range(0, table.num_rows, step):
            yield row + start, canonical_table(file, columns, table.slice(start, step), classes, row + start)
        row += table.num_rows


def delta_columns(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Read the column names of a Delta table, those of its partitions included."""
    return field_names(_delta(file).schema, wanted)


def delta_rows(file: DataFile, columns: Columns) -> NumberedTables:
    """Yield (row, table) of the live rows of a Delta table's newest version."""
    data = _delta(file)
    names = columns_of(data.schema, columns.selected().values())
    options = {"batch_size": GROUP_ROWS, "batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
    batches = data.scanner(columns=names, **options).to_batches()
    yield from _tables(file, columns, data.schema, batches)


def _delta(file: DataFile) -> Any:
    try:
        import deltalake
    except ImportError:
        what = f"{file.name} is a Delta table, which needs the extra delta"
        raise UserError(what, fix="pip install 'raypath[delta]'") from None
    from deltalake.exceptions import DeltaError

    try:
        live = deltalake.DeltaTable(str(file.path)).to_pyarrow_dataset()
    except DeltaError as error:
        what = f"Delta table {file.name} cannot be read ({str(error).splitlines()[0][:120]})"
        fix = "write a copy without this feature, such as deletion vectors"
        raise DataError(what, fix=fix) from None
    # The log's order changes when it is compacted.
    fragments = sorted(live.get_fragments(), key=lambda fragment: str(fragment.path))
    return pa.dataset.FileSystemDataset(fragments, live.schema, live.format, live.filesystem)
