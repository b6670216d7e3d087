"""Parts of the report for numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.evaluation.proportions import Z
from raypath.components.reports.evaluation.contents import Estimate, Residuals, RowError
from raypath.components.reports.evaluation.outcome import LISTED, Outcome

BINS, CELLS = 24, 40
PANELS = 6
"""Most targets of which the report has the residuals."""


def number_parts(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of EvaluationReport, and `scores` of the rows with the name of the metric."""
    targets, predictions = np.asarray(outcome.targets, np.float64), outcome.decoded
    missed = predictions - targets
    scales = targets.std(axis=0)
    scaled = np.abs(missed) / np.where(scales > 0, scales, 1.0)
    one = targets.shape[1] == 1
    sizes = np.abs(missed[:, 0]) if one else scaled.mean(axis=1)
    name = "mean absolute error" if one else "mean absolute error in standard deviations"
    shown = range(min(len(outcome.labels), PANELS))
    more = len(outcome.labels) - len(shown)
    return {
        "scores": (-sizes, name),
        "residuals": [_residuals(outcome.labels[t], targets[:, t], predictions[:, t]) for t in shown],
        "errors": _errors(targets, predictions, scaled, outcome.labels),
        "skipped": [f"residuals of {more} more targets"] if more else [],
    }


def _residuals(name: str, targets: Array, predictions: Array) -> Residuals:
    missed = predictions - targets
    low, high = np.quantile(missed, [0.005, 0.995])
    high = high if high > low else low + 1.0
    edges = np.linspace(low, high, BINS + 1)
    slot = np.clip(np.searchsorted(edges, missed, side="right") - 1, 0, BINS - 1)
    least, most = float(min(targets.min(), predictions.min())), float(max(targets.max(), predictions.max()))
    width = (most - least) or 1.0
    place = np.minimum((np.stack([targets, predictions]) - least) / width * CELLS, CELLS - 1).astype(np.int64)
    cells, counts = np.unique(place[0] * CELLS + place[1], return_counts=True)
    return Residuals(
        target=name,
        mae=_mean(np.abs(missed)),
        bias=_mean(missed),
        edges=edges.tolist(),
        counts=np.bincount(slot, minlength=BINS).tolist(),
        actual=[least, most],
        cells=[(int(c) // CELLS, int(c) % CELLS, int(n)) for c, n in zip(cells, counts, strict=True)],
    )


def _mean(values: Array) -> Estimate:
    """Return a mean with the interval by its standard error."""
    mean, error = float(values.mean()), Z * float(values.std(ddof=1 if len(values) > 1 else 0)) / len(values) ** 0.5
    return Estimate(value=mean, low=mean - error, high=mean + error)


def _errors(targets: Array, predictions: Array, scaled: Array, labels: tuple[str, ...]) -> list[RowError]:
    """List the rows with the largest error of a target, in standard deviations of the target."""
    worst = scaled.max(axis=1)
    found = []
    for row in np.argsort(-worst, kind="stable")[:LISTED]:
        t = int(scaled[row].argmax())
        lead = f"{labels[t]} " if len(labels) > 1 else ""
        actual, predicted = targets[row, t], predictions[row, t]
        found.append(
            RowError(
                row=int(row),
                label=f"{lead}{actual:.6g}",
                predicted=f"{predicted:.6g}",
                error=float(predicted - actual),
            )
        )
    return found
