"""Packed batches of language models: rows one after another without padding; attention stays inside a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Label of a token after which nothing is learned, as in transformers."""


class JoinedRows(Protocol):
    """Tokens of some rows in memory, see TokenDataset."""

    @property
    def ids(self) -> np.ndarray[Any, Any]: ...
    @property
    def offsets(self) -> np.ndarray[Any, Any]: ...
    @property
    def targets(self) -> np.ndarray[Any, Any]: ...
    @property
    def weights(self) -> np.ndarray[Any, Any] | None: ...
    @property
    def loss_mask(self) -> np.ndarray[Any, Any] | None: ...


def packed_rows(rows: JoinedRows) -> dict[str, torch.Tensor]:
    """Build a batch of B rows and T tokens without padding.

    `input_ids` and `position_ids` int64 [1, T], positions start anew in each row; `labels` int64 [1, T], the token
    after each one if it is learned, else IGNORED; `row_starts` int64 [B + 1]; `targets` [B]; `row_weights` float32 [B]
    if the rows have weights.
    """
    import torch

    starts, lengths = rows.offsets, np.diff(rows.offsets)
    ids = rows.ids.astype(np.int64)
    labels = np.full(len(ids), IGNORED, np.int64)
    labels[:-1] = ids[1:] if rows.loss_mask is None else np.where(rows.loss_mask[1:], ids[1:], IGNORED)
    labels[starts[1:][lengths > 0] - 1] = IGNORED  # the next token is another row's
    made = {
        "input_ids": ids[None],
        "position_ids": (np.arange(len(ids)) - np.repeat(starts[:-1], lengths))[None],
        "labels": labels[None],
        "row_starts": starts.astype(np.int64),
        "targets": rows.targets,
    }
    if rows.weights is not None:
        made["row_weights"] = rows.weights
    return {name: torch.from_numpy(value) for name, value in made.items()}


def rows_of_learned(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Row number of each of the n learned tokens of a packed batch, int64 [n]."""
    import torch

    learned = (batch["labels"][0] != IGNORED).nonzero()[:, 0]
    return torch.searchsorted(batch["row_starts"], learned, right=True) - 1


def token_weights(batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Weight of each of the n learned tokens, that of its row, float32 [n]; None if the rows have no weights."""
    return batch["row_weights"][rows_of_learned(batch)] if "row_weights" in batch else None
