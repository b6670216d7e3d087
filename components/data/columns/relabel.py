"""Rewrite the labels of a dataset in place, one row group at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.data.streaming.parquet import TableWriter, parquet_files, scan, schema_of


def relabel(folder: Path, changes: dict[str, str]) -> None:
    """Put `changes[label]` for every label that is a key of it."""
    old, new = pa.array(list(changes), pa.string()), pa.array(list(changes.values()), pa.string())
    fresh = folder / ".relabel"
    with TableWriter(fresh, schema_of(folder)) as writer:
        for table in scan(folder):
            labels = table["label"]
            changed = pc.coalesce(new.take(pc.index_in(labels, old).combine_chunks()), labels)
            writer.write(table.set_column(table.column_names.index("label"), "label", changed))
    for path in parquet_files(folder):
        path.unlink()
    for path in parquet_files(fresh):
        path.rename(folder / path.name)
    shutil.rmtree(fresh)
