"""Evaluate a model on a test part: metrics with intervals, predictions by row, plots.

The texts are streamed; what is held is one row of logits a text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from components.core.artifacts import Dataset, Model, Report
from components.core.component import component
from components.core.context import Context
from components.core.params import Params

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

CLASSES_TRACKED = 50
"""With more classes than this, figures per class stay in metrics.json and out of MLflow."""


class EvaluateParams(Params):
    """How a model is measured."""

    resamples: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Bootstrap resamples for the 95% intervals; 0 leaves the intervals out."""
    plots: bool = True
    """Draw the confusion matrix, the reliability diagram and F1 per class."""


@component(version=1)
def evaluate(ctx: Context, model: Model, data: Dataset, params: EvaluateParams) -> Report:
    """Measure `model` on `data`; writes metrics.json, predictions.parquet and plots/*.png.

    Metrics are the task's, with `accuracy_low`, `accuracy_high`, `macro_f1_low`, `macro_f1_high`: percentile
    bootstrap at 95%. Raises DataError for an empty part, a missing column, or a label the model does not know.
    """
    from components.serving.scoring import score
    from components.tasks import load_task

    ctx.track.dataset("test", data.digest, data.source, context="test", rows=data.rows)
    targets, logits = score(
        Path(model.uri), data, ctx.workers, lambda done, total: ctx.report(done, total, "rows scored")
    )
    probabilities = load_task(model.task).decode(logits)
    metrics = _measure(model, targets, probabilities, params, ctx.seed)
    _write_metrics(ctx.out, metrics, model, data, len(targets))
    _write_predictions(ctx.out, model.labels, targets, probabilities)
    ctx.track.metrics(_tracked(metrics, model.labels))
    if params.plots:
        ctx.report(data.rows, data.rows, "drawing")
        for path in _draw(ctx.out / "plots", model.labels, targets, probabilities, metrics):
            ctx.track.artifact(path, "plots")
    return Report(model=model, data=data, metrics=metrics)


def _measure(model: Model, targets: Array, probabilities: Array, params: EvaluateParams, seed: int) -> dict[str, float]:
    from components.reporting.intervals import intervals
    from components.tasks import load_task

    metrics = load_task(model.task).metrics(targets, probabilities, model.labels)
    guesses = probabilities.argmax(axis=1)
    return metrics | intervals(targets, guesses, len(model.labels), params.resamples, seed)


def _write_metrics(out: Path, metrics: dict[str, float], model: Model, data: Dataset, rows: int) -> None:
    report = {"rows": rows, "model": model.digest, "test": data.digest, "labels": model.labels, "metrics": metrics}
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (out / "metrics.json").write_text(text + "\n", encoding="utf-8")


def _write_predictions(out: Path, labels: tuple[str, ...], targets: Array, probabilities: Array) -> None:
    """predictions.parquet: row, label, predicted, score (of the predicted label); never the text."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array(labels, pa.string())
    columns = {
        "row": pa.array(np.arange(len(targets))),
        "label": names.take(pa.array(targets)),
        "predicted": names.take(pa.array(probabilities.argmax(axis=1))),
        "score": pa.array(probabilities.max(axis=1).astype(np.float32)),
    }
    pq.write_table(pa.table(columns), out / "predictions.parquet")


def _tracked(metrics: dict[str, float], labels: tuple[str, ...]) -> dict[str, float]:
    """The metrics under keys that MLflow takes: a label with other signs becomes `class_<number>`."""
    number = {label: n for n, label in enumerate(labels)}
    found = {}
    for key, value in metrics.items():
        kind, slash, label = key.partition("/")
        if slash and len(labels) > CLASSES_TRACKED:
            continue
        plain = re.fullmatch(r"[\w\-][\w.\- ]{0,199}", label, re.ASCII)
        found[f"{kind}/{label if plain else f'class_{number[label]}'}" if slash else kind] = value
    return found


def _draw(
    folder: Path, labels: tuple[str, ...], targets: Array, probabilities: Array, metrics: dict[str, float]
) -> list[Path]:
    from components.reporting import plots

    folder.mkdir()
    figures = {
        "confusion": plots.confusion(targets, probabilities.argmax(axis=1), labels),
        "reliability": plots.reliability(targets, probabilities, metrics["ece"]),
        "f1_per_class": plots.per_class(targets, [metrics[f"f1/{label}"] for label in labels], labels),
    }
    return [plots.save(figure, folder / f"{name}.png") for name, figure in figures.items()]
