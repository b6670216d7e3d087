"""Slices of a test split that the gate watches: the rows of each class, and the slices of the evaluation report."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.reports.evaluation.columns import slice_columns

SLICE_ROWS = 30
"""Fewest rows of a slice."""
MOST_CLASSES = 50
"""Most classes whose rows are slices: the most frequent ones."""


def class_slices(labels: tuple[str, ...], targets: Array) -> Iterator[tuple[str, int, Array]]:
    """Yield name, number and rows (bool [N]) of each class. targets: int [N], or 0 or 1 [N, K]."""
    there = targets > 0 if targets.ndim == 2 else targets[:, None] == np.arange(len(labels))  # [N, K]
    for k in np.argsort(-there.sum(axis=0), kind="stable")[:MOST_CLASSES]:
        if int(there[:, k].sum()) >= SLICE_ROWS:
            yield f"class {labels[k]}", int(k), there[:, k]


def column_slices(data: Dataset) -> Iterator[tuple[str, Array]]:
    """Yield name and rows (bool [N]) of each slice by length, language and column; see `slice_columns`."""
    for column in slice_columns(data):
        for number, value in enumerate(column.values):
            rows = column.codes == number
            if SLICE_ROWS <= int(rows.sum()) < len(rows):
                yield f"{column.name}: {value}", rows
