"""Slices of a test split: the rows of each class, quartiles of the length, values of category columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import TEXT, inputs_of
from raypath.components.inference.batch.scoring import batches, data_files

SLICE_ROWS = 30
"""Fewest rows of a slice."""
MOST_CLASSES, MOST_VALUES = 50, 20
"""Most classes, and most values of a column, whose rows are slices: the most frequent ones."""
CATEGORIES = ("category", "boolean")
"""Kinds of columns whose values are slices."""


def class_slices(labels: tuple[str, ...], targets: Array) -> Iterator[tuple[str, int, Array]]:
    """Yield name, number and rows (bool [N]) of each class. targets: int [N], or 0 or 1 [N, K]."""
    there = targets > 0 if targets.ndim == 2 else targets[:, None] == np.arange(len(labels))  # [N, K]
    for k in np.argsort(-there.sum(axis=0), kind="stable")[:MOST_CLASSES]:
        if int(there[:, k].sum()) >= SLICE_ROWS:
            yield f"class {labels[k]}", int(k), there[:, k]


def column_slices(data: Dataset) -> Iterator[tuple[str, Array]]:
    """Yield name and rows (bool [N]) of quartiles of the length, and of each value of category columns.

    The length is in tokens, or in characters for rows without token ids. Only inputs are looked at.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    with data_files(data)[0].open() as file:
        stored = set(file.schema_arrow.names)
    chosen = [column for column in inputs_of(data.columns) if column.kind in CATEGORIES and column.stored in stored]
    text = next((name for name in ("input_ids", TEXT) if name in stored), "")
    unit = "characters" if text == TEXT else "tokens"
    lengths: list[Array] = []
    values: list[list[Any]] = [[] for _ in chosen]
    for batch in batches(data, [*([text] if text else []), *(column.stored for column in chosen)]):
        if text:
            measure = pc.utf8_length if text == TEXT else pc.list_value_length
            lengths.append(pc.fill_null(measure(batch.column(text)), 0).to_numpy(zero_copy_only=False))
        for found, column in zip(values, chosen, strict=True):
            found.append(batch.column(column.stored).cast(pa.string()))
    named = list(_quartiles(np.concatenate(lengths), unit)) if lengths else []
    for found, column in zip(values, chosen, strict=True):
        named += _by_value(column.name, pa.chunked_array(found, pa.string()))
    yield from ((name, rows) for name, rows in named if SLICE_ROWS <= int(rows.sum()) < len(rows))


def _quartiles(lengths: Array, unit: str) -> Iterator[tuple[str, Array]]:
    below = int(lengths.min()) - 1
    for edge in np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1], method="lower")):
        rows = (lengths > below) & (lengths <= edge)
        yield f"length {lengths[rows].min()} to {edge} {unit}", rows
        below = int(edge)


def _by_value(name: str, values: Any) -> Iterator[tuple[str, Array]]:
    import pyarrow.compute as pc

    counts = sorted(pc.value_counts(values).to_pylist(), key=lambda each: (-each["counts"], str(each["values"])))
    for each in counts[:MOST_VALUES]:
        if each["values"] is not None:
            yield f"{name}={each['values'][:40]}", pc.fill_null(pc.equal(values, each["values"]), False).to_numpy()
