"""Folder of text files by class: `FOLDER/CLASS/NAME.txt` is a row with the columns text, label and file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns, from_text
from raypath.components.data.formats.limits import BATCH_BYTES
from raypath.components.data.formats.parse_errors import readable
from raypath.components.data.sources.data_file import DataFile, text_files
from raypath.components.data.sources.streams import open_bytes
from raypath.components.data.streaming.parquet import GROUP_ROWS

_NAMES = ["text", "label", "file"]


def texts_columns(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Return the names of the columns that a folder of text files has."""
    return _NAMES


def texts_rows(file: DataFile, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """Yield (row, table), one row for each file, in the order of their paths."""
    names, first, size = columns.selected(), 1, 0
    rows: list[tuple[str, str, str]] = []
    for path in text_files(file.path):
        parts = path.relative_to(file.path).parts
        if len(parts) < 2 and "label" in columns.labels:
            what = f"{path} is in no folder of a class"
            raise DataError(what, fix="move it, or read the texts without labels with -s read.label=none")
        rows.append((_text(file, path), parts[0], "/".join(parts)))
        size += len(rows[-1][0])
        if len(rows) == GROUP_ROWS or size > BATCH_BYTES:
            yield first, _table(names, columns, rows)
            first, size, rows = first + len(rows), 0, []
    if rows:
        yield first, _table(names, columns, rows)


def _text(folder: DataFile, path: Path) -> str:
    file = replace(folder, path=path, stamp=None, title=str(path.relative_to(folder.path.parent)))
    with readable(file), open_bytes(file) as raw:
        data = raw.read(BATCH_BYTES + 1)
        if len(data) > BATCH_BYTES:
            raise DataError(f"{path} is longer than {BATCH_BYTES >> 20} MiB", fix="divide it into shorter texts")
        return data.decode()


def _table(names: dict[str, str], columns: Columns, rows: list[tuple[str, str, str]]) -> pa.Table:
    values = dict(zip(_NAMES, zip(*rows, strict=True), strict=True))
    return from_text(columns, pa.table({canonical: pa.array(values[name]) for canonical, name in names.items()}))
