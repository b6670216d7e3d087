"""Tokenized rows for training: flat arrays in memory, or, beyond `WINDOW_NUMBERS`, read by row group, from files or
object storage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from raypath.components.core.errors import DataError
from raypath.components.data.streaming.shard_files import shard_files
from raypath.components.models.decoder.packed_batch import packed_rows
from raypath.components.training.batches.pairs import Pairs
from raypath.components.training.batches.targets import target_array
from raypath.components.training.batches.token_blocks import (
    BlockCache,
    BlockPlace,
    Blocks,
    TokenBlock,
    first_pass,
    to_block,
)

WINDOW_NUMBERS = 1 << 25
"""Token ids, and numbers of features, of a split in memory: 128 MiB. Larger ones are read in windows of this size."""

PRIVATE_WINDOW = 1 << 29
"""The same of a private training, 2 GiB: its steps draw rows from all of them."""


class TokenRows(Protocol):
    """Rows to train or validate on, by number."""

    @property
    def targets(self) -> np.ndarray[Any, Any]:
        """Classes int64 [N]; sets float32 [N, K], 1 for each class of the row; numbers float32 [N, T]; without labels
        int64 [N], all 0."""

    @property
    def weights(self) -> np.ndarray[Any, Any] | None:
        """Weight of each row in the loss, float32 [N]; None weights all equally."""

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens per row, int [N]; a row of two answers has those of both."""

    @property
    def pairs(self) -> Pairs | None:
        """Facts about rows of two answers; None for others."""

    @property
    def has_features(self) -> bool:
        """True if batches have the output of a frozen encoder in place of token ids."""

    @property
    def token_range(self) -> tuple[int, int]:
        """Smallest and largest token id; (0, -1) without tokens."""

    @property
    def blocks(self) -> Blocks:
        """Units in which rows are read."""

    def __len__(self) -> int: ...

    def subset(self, rows: np.ndarray[Any, Any]) -> TokenDataset:
        """Select rows by number, in the given order, and read them to memory."""

    def batch(self, rows: np.ndarray[Any, Any], pad: int) -> dict[str, torch.Tensor]:
        """Build a batch: input_ids and attention_mask int64 [B, L], padded to the longest row L, and the targets.

        With features, `features` float32 [B, H] takes the place of ids and mask. Rows with weights have `row_weights`
        float32 [B].
        """

    def packed(self, rows: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
        """Build a batch of T tokens without padding, see `packed_rows`."""


@dataclass(frozen=True)
class TokenDataset:
    """`TokenRows` in memory: ids int32 [sum of lengths]; offsets int64 [N + 1]; targets as in TokenRows.

    features: output of a frozen encoder, float32 [N, H]; the ids are then unused. weights: float32 [N], or None.
    loss_mask: True for tokens in the loss, bool [sum of lengths]; None for all of them. pairs:
    facts about rows of two answers, whose tokens are joined; None for others.
    """

    ids: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]
    features: np.ndarray[Any, Any] | None = None
    weights: np.ndarray[Any, Any] | None = None
    loss_mask: np.ndarray[Any, Any] | None = None
    pairs: Pairs | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def lengths(self) -> np.ndarray[Any, Any]:
        return np.diff(self.offsets)

    @property
    def has_features(self) -> bool:
        return self.features is not None

    @property
    def token_range(self) -> tuple[int, int]:
        return (int(self.ids.min()), int(self.ids.max())) if len(self.ids) else (0, -1)

    @property
    def blocks(self) -> Blocks:
        return Blocks(np.array([0, len(self)]), np.array([0]), WINDOW_NUMBERS)

    def subset(self, rows: np.ndarray[Any, Any]) -> TokenDataset:
        places = [slice(self.offsets[r], self.offsets[r + 1]) for r in rows]
        features = None if self.features is None else self.features[rows]
        weights = None if self.weights is None else self.weights[rows]
        masks = None if self.loss_mask is None else [self.loss_mask[place] for place in places]
        pairs = None if self.pairs is None else self.pairs.rows(rows)
        return _joined([self.ids[place] for place in places], self.targets[rows], features, weights, masks, pairs)

    def batch(self, rows: np.ndarray[Any, Any], pad: int) -> dict[str, torch.Tensor]:
        facts = {"targets": torch.from_numpy(self.targets[rows])}
        if self.weights is not None:
            facts["row_weights"] = torch.from_numpy(self.weights[rows])
        if self.features is not None:
            return {"features": torch.from_numpy(self.features[rows]), **facts}
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        place = np.arange(int(lengths.max(initial=1)))[None, :]
        mask = place < lengths[:, None]  # bool [B, L]
        where = np.where(mask, self.offsets[rows][:, None] + place, 0)
        ids = np.where(mask, self.ids[where], pad).astype(np.int64)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            **facts,
        }

    def packed(self, rows: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
        return packed_rows(self.subset(rows))


@dataclass(frozen=True)
class StreamedTokens:
    """`TokenRows` in files: in memory are targets, weights, four bytes a row for its length, and a window's blocks."""

    cache: BlockCache
    blocks: Blocks
    lengths: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]
    has_features: bool
    token_range: tuple[int, int]
    weights: np.ndarray[Any, Any] | None = None
    pairs: Pairs | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, rows: np.ndarray[Any, Any]) -> TokenDataset:
        pieces: list[np.ndarray[Any, Any]] = [np.empty(0, np.int32)] * len(rows)
        features: list[Any] = [None] * len(rows)
        masks: list[Any] = [None] * len(rows)
        starts = self.blocks.starts
        numbers = np.searchsorted(starts, rows, side="right") - 1
        order = np.argsort(numbers, kind="stable")
        wanted, firsts = np.unique(numbers[order], return_index=True)  # each block once
        for block, chosen in zip(self.cache.several(wanted.tolist()), np.split(order, firsts[1:]), strict=True):
            for n in chosen:
                row = int(rows[n] - starts[numbers[n]])
                # Copies, since a slice would keep the whole block alive.
                place = slice(block.offsets[row], block.offsets[row + 1])
                pieces[n] = block.ids[place].copy()
                features[n] = None if block.features is None else block.features[row].copy()
                masks[n] = None if block.loss_mask is None else block.loss_mask[place].copy()
        weights = None if self.weights is None else self.weights[rows]
        kept = masks if any(mask is not None for mask in masks) else None
        pairs = None if self.pairs is None else self.pairs.rows(rows)
        stacked = np.stack(features) if self.has_features else None
        return _joined(pieces, self.targets[rows], stacked, weights, kept, pairs)

    def batch(self, rows: np.ndarray[Any, Any], pad: int) -> dict[str, torch.Tensor]:
        return self.subset(rows).batch(np.arange(len(rows)), pad)

    def packed(self, rows: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
        return packed_rows(self.subset(rows))


def longest_row(rows: TokenRows) -> int:
    """Return the tokens of the longest row, or of the longest answer with its prompt; 1 at least."""
    found = int(rows.lengths.max(initial=1)) if rows.pairs is None else rows.pairs.longest(rows.lengths)
    return max(found, 1)


def in_memory(table: Any) -> TokenDataset:
    """Convert a table to rows in memory; targets are classes, or all 0 without any."""
    block = to_block(table)
    rows = len(block.offsets) - 1
    targets = np.zeros(rows, np.int64) if block.targets is None else np.asarray(block.targets.to_numpy(), np.int64)
    return TokenDataset(block.ids, block.offsets, targets, loss_mask=block.loss_mask, pairs=block.pairs)


def _joined(
    pieces: list[np.ndarray[Any, Any]], targets: Any, features: Any, weights: Any, masks: Any, pairs: Pairs | None
) -> TokenDataset:
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces], dtype=np.int64)])
    mask = None if masks is None else np.concatenate(masks)
    return TokenDataset(np.concatenate(pieces), offsets, targets, features, weights, mask, pairs)


def load_token_dataset(folder: str | Path, labels: int = 0, window: int = WINDOW_NUMBERS) -> TokenRows:
    """Open the rows of a preprocessed Dataset, in order: in memory, or streamed beyond `window` numbers.

    Every row group is read once for lengths and targets, for which shards in object storage are fetched one by one.
    labels: the number of classes K, needed only for sets. Raises DataError.
    """
    files = shard_files(folder)
    if not files:
        raise DataError(f"{folder} has no Parquet file", fix="give a dataset that `preprocess` made")
    scan = _Scan(window)
    for place, block in first_pass(files, ("target", "weight")):
        scan.add(place, block)
    if not scan.rows:
        raise DataError(f"{folder} has no rows", fix="give more data")
    return scan.result(folder, labels)


class _Scan:
    """One pass over the row groups; keeps their tokens while these fit in a window."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.rows = self.total = 0
        self.kept: list[TokenBlock] | None = []
        self.places: list[BlockPlace] = []
        self.lengths: list[np.ndarray[Any, Any]] = []
        self.sizes: list[int] = []
        self.targets: list[Any] = []
        self.weights: list[np.ndarray[Any, Any]] = []
        self.pairs: list[Pairs] = []
        self.lowest, self.highest = 0, -1
        self.has_features = False

    def add(self, place: BlockPlace, block: TokenBlock) -> None:
        lengths = np.diff(block.offsets).astype(np.int32)
        if not len(lengths):
            return
        self.places.append(place)
        self.lengths.append(lengths)
        self.sizes.append(block.size)
        self.targets += block.targets.chunks if block.targets is not None else []
        self.weights += [] if block.weights is None else [block.weights]
        self.pairs += [] if block.pairs is None else [block.pairs]
        self.rows, self.total = self.rows + len(lengths), self.total + block.size
        if len(block.ids):
            self.lowest = min(self.lowest, int(block.ids.min())) if self.highest >= 0 else int(block.ids.min())
            self.highest = max(self.highest, int(block.ids.max()))
        self.has_features = block.features is not None
        if self.kept is not None:
            self.kept.append(block)
        if self.total > self.window:
            self.kept = None

    def result(self, folder: str | Path, labels: int) -> TokenRows:
        lengths = np.concatenate(self.lengths)
        targets = self._targets(folder, labels)
        weights = np.concatenate(self.weights) if self.weights else None
        pairs = Pairs.joined(self.pairs) if self.pairs else None
        if self.kept is not None:
            features = [block.features for block in self.kept if block.features is not None]
            return TokenDataset(
                ids=np.concatenate([block.ids for block in self.kept]),
                offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
                targets=targets,
                features=np.concatenate(features) if features else None,
                weights=weights,
                loss_mask=_joined_masks(self.kept),
                pairs=pairs,
            )
        starts = np.concatenate([[0], np.cumsum([len(each) for each in self.lengths], dtype=np.int64)])
        blocks, cache = Blocks(starts, np.array(self.sizes), self.window), BlockCache(self.places, self.window)
        span = self.lowest, self.highest
        return StreamedTokens(cache, blocks, lengths, targets, self.has_features, span, weights, pairs)

    def _targets(self, folder: str | Path, labels: int) -> np.ndarray[Any, Any]:
        import pyarrow as pa

        if not self.targets:
            return np.zeros(self.rows, np.int64)
        return target_array(folder, pa.chunked_array(self.targets), labels)


def _joined_masks(blocks: list[TokenBlock]) -> np.ndarray[Any, Any] | None:
    masks = [block.loss_mask for block in blocks if block.loss_mask is not None]
    return np.concatenate(masks) if masks else None
