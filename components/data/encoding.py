"""Encode rows: add token ids and targets to a table. Runs in the step's process or in Ray Data workers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.data.labels.classes import sort_labels
from raypath.components.data.rendering import Renderer
from raypath.components.data.streaming.parquet import label_kind_of, scan, schema_of
from raypath.components.data.tokenization.tokenizer import TextTokenizer

IDS_TYPE = pa.list_(pa.int32())
TARGET_TYPES = {
    LabelKind.CLASS: pa.int32(),
    LabelKind.SET: pa.list_(pa.int32()),
    LabelKind.NUMBER: pa.list_(pa.float32()),
}
TRUNCATED = "truncated"
"""Boolean column, counted and not stored."""


@dataclass(frozen=True)
class EncodeRows:
    """Add `input_ids` (list of int32, special tokens included), `truncated` and, for labelled rows, `target`.

    target: int32, index in `labels`, for a class; a sorted list of indices for a set; a list of float32 for numbers.
    """

    tokenizer: TextTokenizer
    labels: tuple[str, ...]
    renderer: Renderer

    def __call__(self, table: pa.Table) -> pa.Table:
        ids, truncated = self.tokenizer.encode_with_truncation(self.renderer.table(table))
        target = self._targets(table)
        table = table.append_column("input_ids", pa.array(ids, IDS_TYPE))
        table = table.append_column(TRUNCATED, pa.array(truncated, pa.bool_()))
        return table if target is None else table.append_column("target", target)

    @cached_property
    def _targets(self) -> EncodeTargets:
        return EncodeTargets(self.labels)


@dataclass(frozen=True)
class EncodeTargets:
    """Compute `target` of a table's rows; None without labels."""

    labels: tuple[str, ...]

    def __call__(self, table: pa.Table) -> Any:
        kind = label_kind_of(table.schema)
        if kind is LabelKind.NONE:
            return None
        label = table["label"].combine_chunks()
        if kind is LabelKind.NUMBER:
            return label.cast(TARGET_TYPES[kind])
        return self._set_indices(label) if kind is LabelKind.SET else self._class_indices(label)

    def _set_indices(self, sets: Any) -> pa.Array:
        """Class indices of each set, sorted."""
        sizes = pc.list_value_length(sets).to_numpy(zero_copy_only=False)
        indices = self._class_indices(sets.flatten()).to_numpy()
        order = np.lexsort((indices, np.repeat(np.arange(len(sets)), sizes)))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(indices[order]))

    def _class_indices(self, labels: Any) -> pa.Array:
        indices = pc.index_in(labels, self._known)
        if indices.null_count:
            unknown = sorted(set(labels.filter(indices.is_null()).to_pylist()))
            raise DataError(f"class {', '.join(map(str, unknown[:5]))} is not in train", fix="move rows of it to train")
        return indices.cast(pa.int32())

    @cached_property
    def _known(self) -> Any:
        return pa.array(self.labels, pa.string())


def encoded_schema(folder: str) -> pa.Schema:
    """The schema of a dataset after encoding."""
    schema = schema_of(folder)
    kind = label_kind_of(schema)
    schema = schema.append(pa.field("input_ids", IDS_TYPE))
    return schema if kind is LabelKind.NONE else schema.append(pa.field("target", TARGET_TYPES[kind]))


def labels_of(train: Dataset) -> tuple[str, ...]:
    """Classes in the order of their indices, or the names of numeric targets; reads one row group at a time."""
    kind = label_kind_of(schema_of(train.uri))
    if kind not in (LabelKind.CLASS, LabelKind.SET):
        return train.labels if kind is LabelKind.NUMBER else ()
    classes: set[str] = set()
    for table in scan(train.uri, ["label"]):
        label = table["label"]
        classes.update(pc.unique(pc.list_flatten(label) if kind is LabelKind.SET else label).to_pylist())
    return sort_labels(classes, train.label_kind)
