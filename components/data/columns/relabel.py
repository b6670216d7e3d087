"""Rewrite the labels of a dataset in place, one row group at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.data.streaming.parquet import TableWriter, parquet_files, scan, schema_of


def relabel(folder: Path, changes: dict[str, str]) -> None:
    """Replace every label that is a key of `changes` by its value."""
    old, new = pa.array(list(changes), pa.string()), pa.array(list(changes.values()), pa.string())
    rewritten = folder / ".relabel"
    with TableWriter(rewritten, schema_of(folder)) as writer:
        for table in scan(folder):
            labels = table["label"]
            changed = pc.coalesce(new.take(pc.index_in(labels, old).combine_chunks()), labels)
            writer.write(table.set_column(table.column_names.index("label"), "label", changed))
    for path in parquet_files(folder):
        path.unlink()
    for path in parquet_files(rewritten):
        path.rename(folder / path.name)
    shutil.rmtree(rewritten)
