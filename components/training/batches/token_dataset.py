"""Tokenized rows in memory: flat arrays, without a Python object per row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raypath.components.core.errors import DataError


@dataclass(frozen=True)
class TokenDataset:
    """Token ids, offsets and targets of all rows: ids int32 [sum of lengths]; offsets int64 [N + 1].

    targets: classes int64 [N]; sets float32 [N, K], 1 for each class of the row; numbers float32 [N, T]; without labels
    int64 [N], all 0. features: output of a frozen encoder, float32 [N, H]; the ids are then unused.
    """

    ids: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]
    features: np.ndarray[Any, Any] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens per row, int64 [N]."""
        return np.diff(self.offsets)

    def subset(self, rows: np.ndarray[Any, Any]) -> TokenDataset:
        """Select rows by number, in the given order."""
        pieces = [self.ids[self.offsets[r] : self.offsets[r + 1]] for r in rows]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])])
        features = None if self.features is None else self.features[rows]
        return TokenDataset(np.concatenate(pieces), offsets, self.targets[rows], features)

    def batch(self, rows: np.ndarray[Any, Any], pad: int) -> dict[str, torch.Tensor]:
        """Build a batch: input_ids and attention_mask int64 [B, L], padded to the longest row L, and the targets.

        With features, `features` float32 [B, H] takes the place of ids and mask.
        """
        if self.features is not None:
            return {
                "features": torch.from_numpy(self.features[rows]),
                "targets": torch.from_numpy(self.targets[rows]),
            }
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        place = np.arange(int(lengths.max(initial=1)))[None, :]
        mask = place < lengths[:, None]  # bool [B, L]
        where = np.where(mask, self.offsets[rows][:, None] + place, 0)
        ids = np.where(mask, self.ids[where], pad).astype(np.int64)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "targets": torch.from_numpy(self.targets[rows]),
        }


def load_token_dataset(folder: str | Path, labels: int = 0) -> TokenDataset:
    """Read `input_ids`, and `target` and `features` if present, from the files of a preprocessed Dataset, in order.

    labels: the number of classes K, needed only for sets. Raises DataError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise DataError(f"{folder} has no Parquet file", fix="give a dataset that `preprocess` made")
    names = [name for name in ("input_ids", "target", "features") if name in pq.read_schema(files[0]).names]
    tables = [pq.read_table(path, columns=names) for path in files]
    table = pa.concat_tables(tables).combine_chunks()
    if not len(table):
        raise DataError(f"{folder} has no rows", fix="give more data")
    lists = pa.concat_arrays(table["input_ids"].chunks)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return TokenDataset(
        ids=lists.flatten().to_numpy(zero_copy_only=False).astype(np.int32),
        offsets=offsets,
        targets=_targets(folder, table, labels),
        features=_features(table),
    )


def _features(table: Any) -> np.ndarray[Any, Any] | None:
    """Convert the column `features` to float32 [N, H]."""
    import pyarrow as pa

    if "features" not in table.column_names:
        return None
    lists = pa.concat_arrays(table["features"].chunks)
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(table), -1)


def _targets(folder: str | Path, table: Any, labels: int) -> np.ndarray[Any, Any]:
    """Convert the column `target` to the array of `TokenDataset.targets`."""
    import pyarrow as pa
    import pyarrow.types as types

    if "target" not in table.column_names:
        return np.zeros(len(table), np.int64)
    kind = table.schema.field("target").type
    if not types.is_list(kind):
        return np.asarray(table["target"].to_numpy(), np.int64)
    lists = pa.concat_arrays(table["target"].chunks)
    sizes = lists.value_lengths().to_numpy(zero_copy_only=False)
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    return _numbers(folder, flat, sizes) if types.is_floating(kind.value_type) else _sets(folder, flat, sizes, labels)


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
