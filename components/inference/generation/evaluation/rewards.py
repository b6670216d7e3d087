"""Rewards of a model for pairs of answers in a test split: what its training on preferences compares.

With a reference, they are log-ratios to the model that the training started from, whose own are 0 by definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.data.streaming.parquet import schema_of
from raypath.components.inference.batch.scoring import batches
from raypath.components.models.base_models import weights_digest
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.tasks.objectives.preference import OBJECTIVES, Answers, pair_loss
from raypath.components.training.batches.pairs import REFERENCES, REJECTED_IDS, REJECTED_MASK
from raypath.components.training.batches.reference_scores import ReferenceScores

ANSWERS = ("input_ids", "loss_mask", REJECTED_IDS, REJECTED_MASK)


def pair_rewards(
    folder: Path, data: Dataset, rows: Sequence[int], objective: Mapping[str, Any] | None, threads: int = 0
) -> Array | None:
    """Compare the answers of each pair, float64 [N, 3]: 1 where the chosen one has the higher reward, 0.5 for a tie;
    the difference of the rewards; the loss of the objective.

    objective: ModelMetadata.objective. Returns None for rows that are no pairs, an objective of single answers, and
    rows without the scores that the objective needs.
    """
    given = ObjectiveParams.model_validate(dict(objective or {}))
    facts, columns = OBJECTIVES[given.preference], schema_of(data.uri).names
    needed = (*ANSWERS, *(REFERENCES if facts.reference else ()))
    if not objective or not facts.pairs or not rows or not set(needed) <= set(columns):
        return None
    import torch

    table = _rows(data, rows, [name for name in (*ANSWERS, *REFERENCES) if name in columns])
    reference = _columns(table, REFERENCES) if facts.reference else np.zeros((len(table), 2))
    if facts.reference and data.reference == weights_digest(folder):
        scores = reference
    else:
        model = ReferenceScores(folder, threads, "auto", data.max_length)
        scores = model.of(table).astype(np.float64)
        model.release()
    sides = [
        Answers(*(torch.from_numpy(each.copy()) for each in (scores[:, n], _learned(table, mask), reference[:, n])))
        for n, mask in enumerate(("loss_mask", REJECTED_MASK))
    ]
    beta = given.beta or facts.beta
    losses = pair_loss(given.preference, sides[0], sides[1], beta, given.label_smoothing, given.margin).numpy()
    better, worse = (side.scores(facts).numpy() for side in sides)
    won = (better > worse) + 0.5 * (better == worse)
    return np.stack([won, beta * (better - worse), losses], axis=1)


def _rows(data: Dataset, rows: Sequence[int], names: Sequence[str]) -> pa.Table:
    """Read columns of the rows with these numbers, which are sorted."""
    numbers, start, found = np.asarray(rows, np.int64), 0, []
    for batch in batches(data, list(names)):
        here = numbers[(numbers >= start) & (numbers < start + batch.num_rows)] - start
        found.append(pa.table(batch.select(names)).take(here))
        start += batch.num_rows
    return pa.concat_tables(found)


def _columns(table: pa.Table, names: Sequence[str]) -> Array:
    return np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float64)


def _learned(table: pa.Table, mask: str) -> Array:
    """Number of tokens in the loss of each answer, float64 [N]."""
    return np.array([sum(row[1:]) for row in table[mask].to_pylist()], np.float64)
