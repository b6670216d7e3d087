"""Rows to rows with token ids and targets: the function that workers run, and the shards they are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError
from raypath.components.data.columns.labels import sort_labels
from raypath.components.data.streaming.parquet import label_kind_of, parquet_files, scan, scan_file, schema_of
from raypath.components.data.tokenizer import TextTokenizer

IDS = pa.list_(pa.int32())
CUT = "cut"
TARGETS = {"class": pa.int32(), "set": pa.list_(pa.int32()), "number": pa.list_(pa.float32())}


@dataclass(frozen=True)
class ParquetShard:
    """One Parquet file of a part."""

    path: Path

    def __call__(self) -> Iterator[pa.Table]:
        yield from scan_file(self.path)

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size


def parquet_shards(folder: str) -> list[ParquetShard]:
    """The files of one part in row order."""
    return [ParquetShard(path) for path in parquet_files(folder)]


@dataclass(frozen=True)
class EncodeRows:
    """Adds `input_ids` (list of int32, special tokens included) and, where there is a label, `target` to a table.

    And `cut`, which is counted and not kept: whether the text was longer than the encoder takes.
    target: int32, index in `labels`, for a class; a sorted list of these for a set; a list of float32 for numbers.
    """

    encoder: TextTokenizer
    labels: tuple[str, ...]

    def __call__(self, table: pa.Table) -> pa.Table:
        ids, cut = self.encoder.encode_with_truncation(table["text"].to_pylist())
        target = self._target(table)
        table = table.append_column("input_ids", pa.array(ids, IDS)).append_column(CUT, pa.array(cut, pa.bool_()))
        return table if target is None else table.append_column("target", target)

    def _target(self, table: pa.Table) -> Any:
        form = label_kind_of(table.schema)
        if form == "none":
            return None
        label = table["label"].combine_chunks()
        if form == "number":
            return label.cast(TARGETS[form])
        return self._sets(label) if form == "set" else self._numbers(label)

    def _sets(self, sets: Any) -> pa.Array:
        """The class numbers of each set, sorted."""
        sizes = pc.list_value_length(sets).to_numpy(zero_copy_only=False)
        numbers = self._numbers(sets.flatten()).to_numpy()
        order = np.lexsort((numbers, np.repeat(np.arange(len(sets)), sizes)))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(numbers[order]))

    def _numbers(self, labels: Any) -> pa.Array:
        found = pc.index_in(labels, self._known)
        if found.null_count:
            strange = sorted(set(labels.filter(found.is_null()).to_pylist()))
            raise DataError(f"class {', '.join(map(str, strange[:5]))} is not in train", fix="move rows of it to train")
        return found.cast(pa.int32())

    @cached_property
    def _known(self) -> Any:
        return pa.array(self.labels, pa.string())


def encoded_schema(folder: str) -> pa.Schema:
    """The columns of a part once encoded."""
    schema = schema_of(folder)
    form = label_kind_of(schema)
    schema = schema.append(pa.field("input_ids", IDS))
    return schema if form == "none" else schema.append(pa.field("target", TARGETS[form]))


def labels_of(train: Dataset) -> tuple[str, ...]:
    """The classes in the order of their numbers, or the names of the numbers; holds one row group at a time."""
    form = label_kind_of(schema_of(train.uri))
    if form not in ("class", "set"):
        return train.labels if form == "number" else ()
    found: set[str] = set()
    for table in scan(train.uri, ["label"]):
        label = table["label"]
        found.update(pc.unique(pc.list_flatten(label) if form == "set" else label).to_pylist())
    return sort_labels(found, train.label_kind)
