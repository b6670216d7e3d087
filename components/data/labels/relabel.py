"""Rewrite the labels of a dataset in place, one row group at a time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.data.streaming.parquet import TableWriter, parquet_files, scan, schema_of


@dataclass(frozen=True)
class Relabel:
    """Replace every label of a table that is a key of `changes` by its value."""

    changes: dict[str, str]

    def __call__(self, table: pa.Table) -> pa.Table:
        old = pa.array(list(self.changes), pa.string())
        new = pa.array(list(self.changes.values()), pa.string())
        labels = table["label"]
        changed = pc.coalesce(new.take(pc.index_in(labels, old).combine_chunks()), labels)
        return table.set_column(table.column_names.index("label"), "label", changed)


def relabel(folder: Path, changes: dict[str, str]) -> None:
    """Rewrite the labels of the dataset in a folder."""
    change = Relabel(changes)
    rewritten = folder / ".relabel"
    with TableWriter(rewritten, schema_of(folder)) as writer:
        for table in scan(folder):
            writer.write(change(table))
    for path in parquet_files(folder):
        path.unlink()
    for path in parquet_files(rewritten):
        path.rename(folder / path.name)
    shutil.rmtree(rewritten)
