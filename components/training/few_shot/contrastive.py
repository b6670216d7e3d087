"""Contrastive fine-tuning of an encoder, as in SetFit (Tunstall et al., Efficient Few-Shot Learning Without Prompts,
2022), and its batches.

The loss is the squared error of cosine similarities: 1 for two rows of a class, 0 for rows of different classes. SetFit
computes two embeddings for each pair that it draws; here each batch counts all pairs of its rows, so that n embeddings
give n (n - 1) / 2 pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from raypath.components.core.arrays import Array, Batch
from raypath.components.training.batches.sampler import pack
from raypath.components.training.batches.token_dataset import TokenRows
from raypath.components.training.params import CONTRASTIVE_PASSES


def embed(model: Any, batch: Batch) -> Any:
    """Return embeddings of length one, float32 [B, H]: the state that the head of a sequence classifier reads."""
    from torch.nn import functional

    states = model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    return functional.normalize(states[:, 0].float(), dim=1)


def pair_loss(embeddings: Any, targets: Any) -> Any:
    """Squared error of the cosines, a scalar: the mean over pairs of a class plus the mean over pairs of two classes.

    embeddings float32 [B, H] of length one, targets int64 [B]. Both kinds of pairs count the same, whatever their
    number; a kind that the batch lacks counts 0.
    """
    import torch

    cosines = embeddings @ embeddings.T  # [B, B]
    same = targets[:, None] == targets[None, :]
    itself = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    positive, negative = (same & ~itself).float(), (~same).float()
    pulled = (positive * (1 - cosines) ** 2).sum() / positive.sum().clamp(min=1)
    pushed = (negative * cosines**2).sum() / negative.sum().clamp(min=1)
    return pulled + pushed


class PairPlan(Sequence[Array]):
    """Steps of one epoch: the row numbers of each. Rows of a class come in twos, of classes in random order.

    budget: tokens a step, including padding; seed, epoch: of the order, so that a run resumes at any step. Every row is
    in PASSES steps.
    """

    def __init__(self, rows: TokenRows, budget: int, seed: int, epoch: int) -> None:
        self.steps: list[Array] = []
        for number in range(CONTRASTIVE_PASSES):
            order = paired_order(np.asarray(rows.targets), np.random.default_rng([seed, epoch, number]))
            self.steps += pack(np.asarray(rows.lengths), order, max(budget, 4 * int(rows.lengths.max(initial=1))))

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, step: int) -> Array: ...
    @overload
    def __getitem__(self, step: slice) -> list[Array]: ...
    def __getitem__(self, step: int | slice) -> Any:
        return self.steps[step]


def paired_order(targets: Array, rng: np.random.Generator) -> Array:
    """Order rows such that two of a class follow each other, int64 [N]: in turns, each class with rows left gives two.

    Rare classes are therefore used up first, and the last rows are of the most frequent classes.
    """
    shuffled = rng.permutation(len(targets))
    turns = np.empty(len(targets), np.int64)
    for target in np.unique(targets):
        own = np.flatnonzero(targets[shuffled] == target)
        turns[own] = np.arange(len(own)) // 2
    # In each turn another order of the classes.
    order = rng.random((int(targets.max(initial=0)) + 1, int(turns.max(initial=0)) + 1))
    return np.asarray(shuffled[np.lexsort((order[targets[shuffled], turns], turns))])
