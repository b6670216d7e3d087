"""Batches of the variants: padded to the longest row, padded to few shapes, or packed without padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raypath.components.core.arrays import Array
from tests.bench.gpu.shapes import MEAN, Rows, Shape, packed_steps, padded_steps

MULTIPLE = 32
"""Lengths of the few shapes are multiples of this: four shapes up to 128 tokens."""
FILLER = 512
"""Longest row of padding in a packed batch; attention has to know the longest row beforehand."""


@dataclass(frozen=True)
class Batch:
    """Tensors of one step on the CPU, and what it holds without padding. weights: float32, 0 for rows of padding."""

    tensors: dict[str, torch.Tensor]
    rows: int
    tokens: int
    pairs: int

    def to(self, device: str) -> dict[str, torch.Tensor]:
        """Copy the tensors to a device."""
        return {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}


def _batch(rows: Rows, chosen: Array, **tensors: Any) -> Batch:
    lengths = rows.lengths[chosen]
    made = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
    return Batch(made, len(chosen), int(lengths.sum()), int((lengths**2).sum()))


def pad(rows: Rows, chosen: Array, length: int, count: int) -> Batch:
    """Pad to [count, length]; rows beyond those chosen have one token and weight 0."""
    ids, mask = np.zeros((count, length), np.int64), np.zeros((count, length), np.int64)
    targets, weights = np.zeros(count, np.int64), np.zeros(count, np.float32)
    mask[:, 0] = 1
    for place, row in enumerate(chosen):
        tokens = rows[row]
        ids[place, : len(tokens)] = tokens
        mask[place, : len(tokens)] = 1
    targets[: len(chosen)], weights[: len(chosen)] = rows.targets[chosen], 1.0
    return _batch(rows, chosen, input_ids=ids, attention_mask=mask, targets=targets, weights=weights)


def any_shape(shape: Shape, rows: Rows) -> Iterator[Batch]:
    """Yield batches as training makes them today: as wide as their longest row."""
    for chosen in padded_steps(rows, shape.tokens):
        yield pad(rows, chosen, int(rows.lengths[chosen].max()), len(chosen))


def few_shapes(shape: Shape, rows: Rows) -> Iterator[Batch]:
    """Yield batches of [tokens / L, L], L a multiple of MULTIPLE: steps that are not full are filled up."""
    for chosen in padded_steps(rows, shape.tokens):
        length = -(-int(rows.lengths[chosen].max()) // MULTIPLE) * MULTIPLE
        count = shape.tokens // length
        for start in range(0, len(chosen), count):
            yield pad(rows, chosen[start : start + count], length, count)


def packed(shape: Shape, rows: Rows) -> Iterator[Batch]:
    """Yield batches of one shape, packed: ids and positions [T], starts int32 [R + 1], targets and weights [R].

    A quarter more rows than a mean step has are provided for. Rows of padding share the tokens that are left.
    """
    most = shape.tokens * 5 // (4 * MEAN)
    total = shape.tokens + most
    for chosen in packed_steps(rows, shape.tokens, most - 1):
        yield pack(rows, chosen, most, total)


def pack(rows: Rows, chosen: Array, count: int, total: int) -> Batch:
    """Pack rows one after another into `total` tokens and `count` rows."""
    lengths = rows.lengths[chosen]
    spare, left = count - len(chosen), total - int(lengths.sum())
    if left > spare * FILLER:
        raise ValueError(f"{left} tokens are left for {spare} rows of padding, which have at most {FILLER} tokens each")
    filler = np.full(spare, left // spare, np.int64)
    filler[: left % spare] += 1
    every = np.concatenate([lengths, filler])
    starts = np.concatenate([[0], np.cumsum(every)])
    ids = np.zeros(total, np.int64)
    ids[: lengths.sum()] = np.concatenate([rows[row] for row in chosen])
    positions = np.arange(total) - np.repeat(starts[:-1], every)
    targets, weights = np.zeros(count, np.int64), np.zeros(count, np.float32)
    targets[: len(chosen)], weights[: len(chosen)] = rows.targets[chosen], 1.0
    tensors = {"ids": ids, "positions": positions, "starts": starts.astype(np.int32)}
    return _batch(rows, chosen, **tensors, targets=targets, weights=weights)
