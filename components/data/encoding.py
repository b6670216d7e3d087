"""Rows to rows with token ids and class numbers: the function that workers run, and the pieces they are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.core.errors import DataError
from components.data.tables import parquet_files, scan, scan_file, schema_of
from components.data.tokens import Encoder

IDS = pa.list_(pa.int32())


@dataclass(frozen=True)
class Part:
    """One Parquet file of a part."""

    path: Path

    def __call__(self) -> Iterator[pa.Table]:
        yield from scan_file(self.path)

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size


def part_files(folder: str) -> list[Part]:
    """The files of one part in row order."""
    return [Part(path) for path in parquet_files(folder)]


@dataclass(frozen=True)
class Encode:
    """Adds `input_ids` (list of int32, special tokens included) and `target` (int32, index in `labels`) to a table."""

    encoder: Encoder
    labels: tuple[str, ...]

    def __call__(self, table: pa.Table) -> pa.Table:
        ids = pa.array(self.encoder.encode(table["text"].to_pylist()), IDS)
        target = pc.index_in(table["label"], self._known)
        if target.null_count:
            strange = sorted(set(table["label"].filter(target.is_null()).to_pylist()))
            raise DataError(f"class {', '.join(map(str, strange[:5]))} is not in train", fix="move rows of it to train")
        return table.append_column("input_ids", ids).append_column("target", target.cast(pa.int32()))

    @cached_property
    def _known(self) -> Any:
        return pa.array(self.labels, pa.string())


def encoded_schema(folder: str) -> pa.Schema:
    """The columns of a part once encoded."""
    return schema_of(folder).append(pa.field("input_ids", IDS)).append(pa.field("target", pa.int32()))


def labels_of(folder: str) -> set[str]:
    """The classes of a part; holds one row group at a time."""
    found: set[str] = set()
    for table in scan(folder, ["label"]):
        found.update(pc.unique(table["label"]).to_pylist())
    return found
