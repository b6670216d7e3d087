"""Membership inference against a model: rows of its training split, and of its test split as the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError
from raypath.components.evaluation.membership_inference import attack, confidence, lira, shadow_confidence
from raypath.components.inference.batch.scoring import sample_rows
from raypath.components.inference.engine import Engine

MOST_ROWS = 2_000
"""Rows of each split that are attacked, at most: the interval of the AUC is then two points wide."""


def membership_metrics(
    folder: Path, engine: Engine, train: Dataset, test: Dataset, threads: int, seed: int
) -> dict[str, float]:
    """Return AUC, and share of members found at 1% false positives, with intervals, of two attacks: `membership_...`
    by the loss, `membership_lira_...` with shadow heads on the features of the model's own encoder.

    Raises DataError for a model that does not predict one class a row.
    """
    if engine.task.plain != "label":
        what = "membership inference attacks models that predict one class a row"
        raise DataError(what, fix="set -s evaluate.membership=false")
    parts = [sample_rows(folder, data, MOST_ROWS) for data in (train, test)]
    tokens, targets = [row for ids, _ in parts for row in ids], np.concatenate([labels for _, labels in parts])
    if min(len(labels) for _, labels in parts) < 2:
        raise DataError("membership inference needs two rows of train and of test", fix="give more rows")
    members = len(parts[0][1])
    scores = confidence(engine.task.decode(engine.record(tokens, seed=0)), targets)
    found = attack(scores[:members], scores[members:]).metrics("membership")
    features = _features(folder, tokens, threads)
    if features is not None and len(np.unique(targets)) > 1:
        ratios = lira(scores, *shadow_confidence(features, targets, seed))
        found |= attack(ratios[:members], ratios[members:]).metrics("membership_lira")
    return found


def _features(folder: Path, tokens: list[list[int]], threads: int) -> np.ndarray | None:
    """Compute the features of a head, float32 [N, H]; None for an encoder whose head reads several tokens."""
    import pyarrow as pa

    from raypath.components.models.metadata import read_metadata
    from raypath.components.training.batches.frozen_features import Features

    table = pa.table({"input_ids": pa.array(tokens, pa.list_(pa.int32()))})
    try:
        made = Features(folder, threads, "auto", read_metadata(folder).separator)(table)["features"]
    except DataError:
        return None
    return np.asarray(made.combine_chunks().flatten().to_numpy()).reshape(len(tokens), -1)
