"""Tokenised rows in memory: three flat arrays, no Python object a row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.core.errors import DataError


@dataclass(frozen=True)
class Rows:
    """ids int32 [sum of lengths]; offsets int64 [N + 1]; targets int64 [N]."""

    ids: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens of each row, int64 [N]."""
        return np.diff(self.offsets)

    def subset(self, rows: np.ndarray[Any, Any]) -> Rows:
        """The rows of these numbers, in this order."""
        pieces = [self.ids[self.offsets[r] : self.offsets[r + 1]] for r in rows]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])])
        return Rows(np.concatenate(pieces), offsets, self.targets[rows])

    def batch(self, rows: np.ndarray[Any, Any], pad: int) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask int64 [B, L] and targets int64 [B], padded to the batch's longest row L."""
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


def load_rows(folder: str | Path) -> Rows:
    """Read `input_ids` and `target` of a preprocessed Dataset's Parquet files, in order. Raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no Parquet file", fix="give a dataset that `preprocess` made")
    tables = [pq.read_table(path, columns=["input_ids", "target"]) for path in files]
    table = pa.concat_tables(tables).combine_chunks()
    if not len(table):
        raise DataError(f"{folder} holds no rows", fix="give more data")
    lists = pa.concat_arrays(table["input_ids"].chunks)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Rows(
        ids=lists.flatten().to_numpy(zero_copy_only=False).astype(np.int32),
        offsets=offsets,
        targets=table["target"].to_numpy().astype(np.int64),
    )
