"""Packed batches of language models: rows one after another without padding; attention stays inside a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Label of a token whose successor is not in the loss, as in transformers."""


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
    @property
    def pairs(self) -> PairFacts | None: ...


class PairFacts(Protocol):
    """Facts about rows of two answers, see training/batches/pairs.py."""

    @property
    def references(self) -> np.ndarray[Any, Any] | None: ...
    def answer_offsets(self, offsets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...
    def answers_shared(self) -> np.ndarray[Any, Any]: ...


def packed_rows(rows: JoinedRows) -> dict[str, torch.Tensor]:
    """Build a batch of B rows and T tokens without padding.

    `input_ids` and `position_ids` int64 [1, T], positions start anew in each row; `labels` int64 [1, T], the next
    token if it is in the loss, else IGNORED; `row_starts` int64 [B + 1]; `targets` [B]; `row_weights` float32 [B]
    if the rows have weights.

    Rows of pairs have two answers each, which are rows of their own here: `row_starts` int64 [2 B + 1]. `shared` int64
    [2 B]: tokens at the start of the row before it that a row begins with, and that its own tokens follow.
    `references` float32 [B, 2] if there are any.
    """
    import torch

    pairs = rows.pairs
    starts = rows.offsets if pairs is None else pairs.answer_offsets(rows.offsets)
    lengths = np.diff(starts)
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
    if pairs is not None:
        made["shared"] = pairs.answers_shared()
        made["position_ids"] = made["position_ids"] + np.repeat(made["shared"], lengths)[None]
        if pairs.references is not None:
            made["references"] = pairs.references
    return {name: torch.from_numpy(value) for name, value in made.items()}


def rows_of_learned(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Row number of each of the n tokens in the loss of a packed batch, int64 [n]."""
    import torch

    learned = (batch["labels"][0] != IGNORED).nonzero()[:, 0]
    return torch.searchsorted(batch["row_starts"], learned, right=True) - 1


def token_weights(batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Weight of each of the n tokens in the loss, that of its row, float32 [n]; None if the rows have no weights."""
    return batch["row_weights"][rows_of_learned(batch)] if "row_weights" in batch else None
