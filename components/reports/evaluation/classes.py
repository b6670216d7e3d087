"""Parts of the report for one class a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.evaluation.proportions import f1_interval, wilson
from raypath.components.inspection.findings.model import MIN_CLASS, USEFUL, label_errors
from raypath.components.reports.evaluation.contents import (
    ClassResult,
    Confusion,
    Coverage,
    Estimate,
    LabelErrors,
    RowError,
)
from raypath.components.reports.evaluation.outcome import LISTED, Outcome, calibration, thresholds

MATRIX = 20
"""Most classes of which the report has the whole matrix."""
EXAMPLES = 3
"""Rows that are listed of a confusion."""
_CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def class_parts(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of EvaluationReport, and `scores` of the rows with the name of the metric."""
    labels, probabilities = outcome.labels, outcome.decoded
    targets = np.asarray(outcome.targets)
    predicted: Array = outcome.task.predicted(probabilities)  # type: ignore[attr-defined]
    right = predicted == targets
    confidence = probabilities[np.arange(len(targets)), predicted]
    classes = len(labels)
    cells, counts = np.unique(targets * classes + predicted, return_counts=True)
    found, skipped = _label_errors(targets, probabilities, labels)
    thresholds_used = outcome.task.metadata.thresholds
    parts: dict[str, Any] = {
        "scores": (right.astype(np.float64), "accuracy"),
        "classes": class_results(
            labels,
            np.bincount(targets[right], minlength=classes),
            np.bincount(targets, minlength=classes),
            np.bincount(predicted, minlength=classes),
        ),
        "confusions": _confusions(targets, predicted, confidence, cells, counts, labels),
        "calibration": calibration(
            targets, probabilities, outcome.valid, len(outcome.valid[0]) if outcome.valid else 0
        ),
        "coverage": _coverage(right, confidence),
        "errors": _errors(np.flatnonzero(~right), targets, predicted, confidence, labels),
        "label_errors": found,
        "skipped": skipped,
    }
    if classes <= MATRIX:
        matrix = np.zeros(classes**2, np.int64)
        matrix[cells] = counts
        parts["matrix"] = matrix.reshape(classes, classes).tolist()
    if classes == 2:
        parts["thresholds"] = thresholds(targets == 1, probabilities[:, 1])
        parts["decision"] = thresholds_used[0] if thresholds_used else 0.5
    return parts


def class_results(labels: tuple[str, ...], hits: Array, rows: Array, predicted: Array) -> list[ClassResult]:
    """Compute the metrics of each class with their intervals. Counts, int [K]."""
    precision, recall = wilson(hits, predicted), wilson(hits, rows)
    f1 = f1_interval(hits, rows, predicted)

    def estimate(n: int, part: Any, whole: Any, ends: tuple[Array, Array]) -> Estimate:
        return Estimate(value=float(part / whole) if whole else 0.0, low=float(ends[0][n]), high=float(ends[1][n]))

    return [
        ClassResult(
            label=label,
            rows=int(rows[n]),
            predicted=int(predicted[n]),
            precision=estimate(n, hits[n], predicted[n], precision),
            recall=estimate(n, hits[n], rows[n], recall),
            f1=estimate(n, 2 * hits[n], rows[n] + predicted[n], f1),
        )
        for n, label in enumerate(labels)
    ]


def _confusions(
    targets: Array, predicted: Array, confidence: Array, cells: Array, counts: Array, labels: tuple[str, ...]
) -> list[Confusion]:
    """List the pairs that are confused most often, each with its most certain rows."""
    wrong = cells // len(labels) != cells % len(labels)
    cells, counts = cells[wrong], counts[wrong]
    found = []
    for n in np.argsort(-counts, kind="stable")[:LISTED]:
        true, other = divmod(int(cells[n]), len(labels))
        rows = np.flatnonzero((targets == true) & (predicted == other))
        rows = rows[np.argsort(-confidence[rows], kind="stable")[:EXAMPLES]]
        found.append(Confusion(label=labels[true], predicted=labels[other], count=int(counts[n]), rows=rows.tolist()))
    return found


def _coverage(right: Array, confidence: Array) -> list[Coverage]:
    found = []
    for least in _CONFIDENCES:
        chosen = confidence >= least
        if chosen.any():
            accuracy = float(right[chosen].mean())
            found.append(Coverage(confidence=least, rows=float(chosen.mean()), accuracy=accuracy))
    return found


def _errors(
    rows: Array, targets: Array, predicted: Array, confidence: Array, labels: tuple[str, ...]
) -> list[RowError]:
    """List these rows, the most certain first."""
    order = rows[np.argsort(-confidence[rows], kind="stable")[:LISTED]]
    return [
        RowError(
            row=int(row),
            label=labels[targets[row]],
            predicted=labels[predicted[row]],
            confidence=float(confidence[row]),
        )
        for row in order
    ]


def _label_errors(
    targets: Array, probabilities: Array, labels: tuple[str, ...]
) -> tuple[LabelErrors | None, list[str]]:
    """Find labels that the model contradicts with certainty, by the rules of the data report.

    The model did not see these rows in training, so its probabilities are out of sample.
    """
    enough = np.bincount(targets, minlength=len(labels)) >= MIN_CLASS
    used = np.flatnonzero(enough[targets])
    if enough.sum() < 2:
        return None, [f"label errors: fewer than two classes have {MIN_CLASS} rows in the test split"]
    numbers = np.cumsum(enough) - 1
    chosen, own = probabilities[np.ix_(used, np.flatnonzero(enough))], numbers[targets[used]]
    agreement = float((chosen.argmax(axis=1) == own).mean())
    if agreement < USEFUL:
        what = f"label errors: the model agrees with {agreement:.0%} of the labels"
        return None, [f"{what}, and its objections are trusted from {USEFUL:.0%} on"]
    wrong, order = label_errors(chosen, own)
    rows = used[wrong][order]
    guess = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    listed = [
        RowError(
            row=int(row), label=labels[targets[row]], predicted=labels[guess[row]], confidence=float(confidence[row])
        )
        for row in rows[:LISTED]
    ]
    return LabelErrors(agreement=agreement, count=len(rows), rows=listed), []
