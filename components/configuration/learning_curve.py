"""Learning curve: what more data would bring, from heads fitted on parts of train, on features of the frozen base.

It takes seconds and not a training for each part. A head on frozen features is not the model, but where it gains from
more rows, so does a fine-tuned model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata

SHARES = (0.25, 0.5, 1.0)
TRAIN_ROWS, VALID_ROWS = 2_000, 1_000
LEAST_ROWS = 200
"""Rows of train and classes' rows below which a curve says nothing."""
MAX_TOKENS = 64
"""Tokens of a text that its features are computed from: time grows with them."""
MAX_BYTES = 1 << 30
"""Largest weights of a base whose features are computed for this."""
WORTH_IT = 0.01
"""Gain of accuracy from half of the rows to all from which more data is worth collecting."""


def report_learning_curve(
    ctx: Context, folder: Path, splits: tuple[Dataset, Dataset], metadata: ModelMetadata
) -> Mapping[str, float]:
    """Log whether more data would help, and the accuracies to MLflow; {} where the curve does not apply.

    folder: the base model; splits: train and valid, after `preprocess`. It applies to rows with one class each.
    """
    train, valid = splits
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    one_class = metadata.label_kind.general is LabelKind.CLASS
    if not one_class or train.rows < LEAST_ROWS or len(train.labels) < 2 or weights > MAX_BYTES:
        return {}
    try:
        rows = [
            _features(ctx, folder, data, most, metadata.separator)
            for data, most in ((train, TRAIN_ROWS), (valid, VALID_ROWS))
        ]
    except DataError as error:  # a head that does not read the first token
        ctx.log.debug("no learning curve: %s", error.what)
        return {}
    curve = learning_curve(*rows[0], *rows[1], ctx.seed)
    ctx.track.metrics({f"learning_curve/accuracy_{size}_rows": value for size, value in curve.items()})
    ctx.log.info("%s", describe(curve, train.rows))
    return {str(size): value for size, value in curve.items()}


def learning_curve(x: Array, y: Array, valid_x: Array, valid_y: Array, seed: int) -> dict[int, float]:
    """Return the accuracy on valid by the number of training rows, for SHARES of them.

    x: float32 [N, H]; y: int64 [N]. Parts are random, and each contains the one before.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, valid_x = (x - mean) / spread, (valid_x - mean) / spread
    order, found = np.random.default_rng(seed).permutation(len(x)), {}
    for share in SHARES:
        chosen = order[: max(2, round(share * len(x)))]
        if len(np.unique(y[chosen])) < 2:
            continue
        head = LogisticRegression(C=0.01, max_iter=200).fit(x[chosen], y[chosen])
        found[len(chosen)] = float((head.predict(valid_x) == valid_y).mean())
    return found


def describe(curve: Mapping[int, float], rows: int) -> str:
    """Say in a sentence whether more data would help. rows: of train, of which the curve may have a part."""
    sizes = sorted(curve)
    if len(sizes) < 2:
        return "whether more data would help cannot be said: a part of the rows has one class only"
    half, full = sizes[-2], sizes[-1]
    gain = curve[full] - curve[half]
    seen = f"a head on frozen features gains {100 * gain:+.1f} points of accuracy from {half:,} to {full:,} rows"
    if gain < WORTH_IT:
        return f"more data would hardly help: {seen}"
    return f"more data would help: {seen}" + (f"; train has {rows:,}" if rows > full else "")


def _features(ctx: Context, folder: Path, data: Dataset, most: int, separator: int | None) -> tuple[Any, Any]:
    """Return features float32 [N, H] and targets int64 [N] of up to `most` random rows; those of `extract` if any."""
    import pyarrow as pa

    from raypath.components.configuration.facts import sample_rows
    from raypath.components.training.batches.frozen_features import FEATURES, Features

    table = sample_rows(data, ctx.seed, most)
    if FEATURES.name not in table.column_names:
        ids = pa.array([row[:MAX_TOKENS] for row in table["input_ids"].to_pylist()], pa.list_(pa.int32()))
        table = Features(folder, ctx.workers, "auto", separator)(
            pa.table({"input_ids": ids, "target": table["target"]})
        )
    rows = table[FEATURES.name].combine_chunks()
    return rows.flatten().to_numpy().reshape(len(rows), -1), table["target"].to_numpy()
