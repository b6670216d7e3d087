"""Parts of the report for sets of classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.evaluation.metrics import decisions
from raypath.components.reports.evaluation.classes import EXAMPLES, class_results
from raypath.components.reports.evaluation.contents import Confusion, RowError
from raypath.components.reports.evaluation.outcome import LISTED, Outcome, calibration, thresholds


def set_parts(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of EvaluationReport, and `scores` of the rows with the name of the metric."""
    labels, probabilities = outcome.labels, outcome.decoded
    there = np.asarray(outcome.targets).astype(bool)
    given = outcome.task.predicted(probabilities).astype(bool)  # type: ignore[attr-defined]
    hits = there & given
    sizes = there.sum(axis=1) + given.sum(axis=1)
    scores = np.where(sizes > 0, 2 * hits.sum(axis=1) / np.maximum(sizes, 1), 1.0)
    valid = outcome.valid
    flat = (valid[0].ravel().astype(np.int64), decisions(valid[1])) if valid else None
    used = set(outcome.task.metadata.thresholds or (0.5,))
    return {
        "scores": (scores, "row F1"),
        "classes": class_results(labels, hits.sum(axis=0), there.sum(axis=0), given.sum(axis=0)),
        "confusions": _confusions(there & ~given, given & ~there, probabilities, labels),
        "calibration": calibration(
            there.ravel().astype(np.int64), decisions(probabilities), flat, len(valid[0]) if valid else 0
        ),
        "thresholds": thresholds(there.ravel(), probabilities.ravel()),
        "decision": used.pop() if len(used) == 1 else None,
        "errors": _errors(there, given, probabilities, labels),
        "skipped": ["label errors: they are searched for where a row has one class"],
    }


def _confusions(missed: Array, added: Array, probabilities: Array, labels: tuple[str, ...]) -> list[Confusion]:
    """List pairs of a missed class and one that was predicted instead, in the same row."""
    from scipy.sparse import csr_array  # type: ignore[import-untyped]

    counts = (csr_array(missed.T.astype(np.int32)) @ csr_array(added.astype(np.int32))).tocoo()
    found = []
    for n in np.argsort(-counts.data, kind="stable")[:LISTED]:
        true, other = int(counts.row[n]), int(counts.col[n])
        rows = np.flatnonzero(missed[:, true] & added[:, other])
        rows = rows[np.argsort(-probabilities[rows, other], kind="stable")[:EXAMPLES]]
        found.append(
            Confusion(label=labels[true], predicted=labels[other], count=int(counts.data[n]), rows=rows.tolist())
        )
    return found


def _errors(there: Array, given: Array, probabilities: Array, labels: tuple[str, ...]) -> list[RowError]:
    """List the rows with the most certain wrong decision."""
    certain = np.where(there, 1 - probabilities, probabilities) * (there != given)
    worst = certain.max(axis=1)
    order = np.argsort(-worst, kind="stable")[:LISTED]
    return [
        RowError(
            row=int(row),
            label=_names(there[row], labels),
            predicted=_names(given[row], labels),
            confidence=float(worst[row]),
        )
        for row in order
        if worst[row] > 0
    ]


def _names(chosen: Array, labels: tuple[str, ...]) -> str:
    return ", ".join(labels[n] for n in np.flatnonzero(chosen)) or "none"
