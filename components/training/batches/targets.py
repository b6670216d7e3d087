"""The column `target` of a preprocessed dataset as an array: classes, sets or numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.errors import DataError


def target_array(folder: str | Path, column: Any, labels: int) -> np.ndarray[Any, Any]:
    """Convert an Arrow column to the array of `TokenDataset.targets`. Raises DataError for values that do not fit."""
    import pyarrow as pa
    import pyarrow.types as types

    if not types.is_list(column.type):
        return np.asarray(column.to_numpy(), np.int64)
    lists = pa.concat_arrays(column.chunks)
    sizes = lists.value_lengths().to_numpy(zero_copy_only=False)
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    return (
        _numbers(folder, flat, sizes)
        if types.is_floating(column.type.value_type)
        else _sets(folder, flat, sizes, labels)
    )


def _sets(folder: str | Path, codes: Any, sizes: Any, labels: int) -> np.ndarray[Any, Any]:
    """Convert class numbers [M] of rows with `sizes` [N] of them to float32 [N, K]."""
    most = int(codes.max(initial=-1))
    if most >= labels:
        raise DataError(f"{folder} has class number {most}, but only {labels} labels", fix="run preprocess again")
    hot = np.zeros((len(sizes), labels), np.float32)
    hot[np.repeat(np.arange(len(sizes)), sizes), codes] = 1.0
    return hot


def _numbers(folder: str | Path, flat: Any, sizes: Any) -> np.ndarray[Any, Any]:
    """Convert numbers [N * T] to float32 [N, T]."""
    if (sizes != sizes[0]).any():
        raise DataError(f"{folder} has rows with different numbers of targets", fix="run read and preprocess again")
    numbers = np.asarray(flat, np.float32).reshape(len(sizes), -1)
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(bad):
        what = f"{folder} has a NaN or infinite target in row {bad[0] + 1}"
        raise DataError(what, fix="leave such rows out with -s read.nulls=drop")
    return numbers
