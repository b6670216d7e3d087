"""Parquet files in blocks of a few thousand rows. The same rows give the same bytes, however they were batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.data.streaming.shard_files import scan_file, shard_files

GROUP_ROWS = 2_048
"""Rows per row group: the unit that steps keep in memory and workers receive."""
GROUP_BYTES = 1 << 30
"""Maximum size of a row group in memory."""
FILE_ROWS = 65_536
_REPEATING = ["label", "split", "group"]
"""Columns with few distinct values, which are dictionary-encoded."""


class TableWriter:
    """Write rows as 00000.parquet, 00001.parquet, ... with row groups of a fixed size.

    Artifacts are addressed by content, so the bytes must not depend on the batches in which rows arrive. number: of the
    first file.
    """

    def __init__(self, folder: Path, schema: pa.Schema, number: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.schema, self._number = folder, schema.remove_metadata(), number
        self.rows = 0
        self._pending: list[pa.Table] = []
        self._count = self._bytes = 0
        self._file: Any = None

    def write(self, table: pa.Table) -> None:
        """Write the columns of the schema from a table of any length.

        Raises DataError for rows so long that GROUP_ROWS of them exceed GROUP_BYTES.
        """
        self._pending.append(table.select(self.schema.names).cast(self.schema))
        self._count += table.num_rows
        self._bytes += self._pending[-1].nbytes
        if self._bytes > GROUP_BYTES and self._count <= GROUP_ROWS:
            what = f"{self._count:,} rows from row {self.rows + 1:,} on have more than {GROUP_BYTES >> 30} GiB"
            raise DataError(what, fix="divide long texts into several rows")
        if self._count >= GROUP_ROWS:
            joined = pa.concat_tables(self._pending)
            full = self._count - self._count % GROUP_ROWS
            for start in range(0, full, GROUP_ROWS):
                self._put(joined.slice(start, GROUP_ROWS))
            # A copy, since a slice keeps the whole table alive.
            self._pending = [joined.slice(full).combine_chunks()]
            self._count -= full
            self._bytes = self._pending[0].nbytes

    def close(self) -> None:
        """Write the remaining rows; an empty dataset is one file without rows."""
        if self._count or self.rows == 0:
            self._put(pa.concat_tables([self.schema.empty_table(), *self._pending]))
        self._pending, self._count, self._bytes = [], 0, 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put(self, table: pa.Table) -> None:
        if self._file is not None and self.rows % FILE_ROWS == 0:
            self._file.close()
            self._file = None
        if self._file is None:
            path = self.folder / f"{self._number + self.rows // FILE_ROWS:05d}.parquet"
            repeating = [name for name in self.schema.names if name in _REPEATING]
            self._file = pq.ParquetWriter(path, self.schema, compression="zstd", use_dictionary=repeating)
        self._file.write_table(table.combine_chunks(), row_group_size=GROUP_ROWS)
        self.rows += table.num_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()


def parquet_files(folder: str | Path) -> list[Path]:
    """The Parquet files in a folder in row order."""
    return sorted(Path(folder).glob("*.parquet"))


def schema_of(folder: str | Path) -> pa.Schema:
    """Read the schema of a dataset."""
    with shard_files(folder)[0].local() as path:
        return pq.read_schema(path)


def label_kind_of(schema: pa.Schema) -> LabelKind:
    """Kind of the column `label`: CLASS (string), SET (list of strings), NUMBER (list of floats) or NONE."""
    if "label" not in schema.names:
        return LabelKind.NONE
    dtype = schema.field("label").type
    if not pa.types.is_list(dtype):
        return LabelKind.CLASS
    return LabelKind.NUMBER if pa.types.is_floating(dtype.value_type) else LabelKind.SET


def scan(folder: str | Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a dataset in order, one row group at a time."""
    for file in shard_files(folder):
        yield from scan_file(file, columns)
