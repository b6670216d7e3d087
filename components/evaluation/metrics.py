"""Metrics of classes and of sets of classes, by scikit-learn; 0 where one is undefined."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array

Metrics = dict[str, float]


def class_metrics(targets: Array, predictions: Array, probabilities: Array, labels: tuple[str, ...]) -> Metrics:
    """Compute accuracy, macro, micro and weighted precision, recall and F1, the same per class, log loss and ECE.

    targets and predictions int [N], probabilities float64 [N, K].
    """
    from sklearn.metrics import accuracy_score, log_loss

    classes = list(range(len(labels)))
    return {
        "accuracy": float(accuracy_score(targets, predictions)),
        "log_loss": float(log_loss(targets, probabilities, labels=classes)),
        "ece": calibration_error(targets, probabilities),
        **_averages(targets, predictions, classes, ("macro", "micro", "weighted")),
        **_each(targets, predictions, labels),
    }


def set_metrics(targets: Array, predictions: Array, probabilities: Array, labels: tuple[str, ...]) -> Metrics:
    """Compute precision, recall and F1 in four averages and per class, and metrics over rows and probabilities.

    targets and predictions 0 or 1 [N, K], probabilities float64 [N, K]. `samples` averages over rows; a row without
    classes and predictions counts 1. `mean_average_precision` is over the classes that have rows. `log_loss` and `ece`
    are over all N * K decisions.
    """
    from sklearn.metrics import accuracy_score, hamming_loss, log_loss

    targets, classes = targets.astype(int), list(range(len(labels)))
    return {
        "subset_accuracy": float(accuracy_score(targets, predictions)),
        "hamming_loss": float(hamming_loss(targets, predictions)),
        "mean_average_precision": _average_precision(targets, probabilities),
        "log_loss": float(log_loss(targets.ravel(), probabilities.ravel(), labels=[0, 1])),
        "ece": calibration_error(targets.ravel(), decisions(probabilities)),
        **_averages(targets, predictions, classes, ("macro", "micro", "weighted")),
        **_by_row(targets, predictions, classes),
        **_each(targets, predictions, labels),
    }


def missed_classes(targets: Array, predictions: Array, labels: tuple[str, ...]) -> list[str]:
    """Return the classes that have rows but are never predicted. Both int [N], or 0 or 1 [N, K]."""
    if targets.ndim == 2:
        codes = np.flatnonzero(targets.any(axis=0) & ~predictions.any(axis=0))
    else:
        codes = np.setdiff1d(targets, predictions)
    return [labels[code] for code in codes]


def decisions(probabilities: Array) -> Array:
    """Convert N * K probabilities to binary decisions (no, yes), float64 [N * K, 2]."""
    flat = probabilities.ravel()
    return np.stack([1 - flat, flat], axis=1)


def calibration_error(targets: Array, probabilities: Array, bins: int = 15) -> float:
    """Compute the expected calibration error: mean gap of confidence and accuracy over equal-width bins, weighted by
    rows.

    Guo et al., On Calibration of Modern Neural Networks, 2017, eq. 3.
    """
    confidence = probabilities.max(axis=1)  # float64 [N]
    right = probabilities.argmax(axis=1) == np.asarray(targets)
    slot = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = 0.0
    for b in np.unique(slot):
        inside = slot == b
        gap += abs(float(confidence[inside].mean()) - float(right[inside].mean())) * float(inside.mean())
    return gap


def _averages(targets: Array, predictions: Array, classes: list[int], names: tuple[str, ...]) -> Metrics:
    found: Metrics = {}
    for name in names:
        p, r, f = _prf(targets, predictions, classes, name)
        found |= {f"{name}_precision": float(p), f"{name}_recall": float(r), f"{name}_f1": float(f)}
    return found


def _by_row(targets: Array, predictions: Array, classes: list[int]) -> Metrics:
    """Average over rows; scikit-learn counts a row without classes and predictions as 0."""
    empty = float((~targets.any(axis=1) & ~predictions.any(axis=1)).mean())
    found = _averages(targets, predictions, classes, ("samples",))
    return {name: value + empty for name, value in found.items()}


def _each(targets: Array, predictions: Array, labels: tuple[str, ...]) -> Metrics:
    found: Metrics = {}
    for label, p, r, f in zip(labels, *_prf(targets, predictions, list(range(len(labels))), None), strict=True):
        found |= {f"precision/{label}": float(p), f"recall/{label}": float(r), f"f1/{label}": float(f)}
    return found


def _prf(targets: Array, predictions: Array, classes: list[int], average: str | None) -> Any:
    from sklearn.metrics import precision_recall_fscore_support

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return precision_recall_fscore_support(
            targets, predictions, labels=classes, average=average, zero_division=0.0
        )[:3]


def _average_precision(targets: Array, probabilities: Array) -> float:
    from sklearn.metrics import average_precision_score

    there = targets.any(axis=0)
    if not there.any():
        return 0.0
    return float(np.mean([average_precision_score(targets[:, k], probabilities[:, k]) for k in np.flatnonzero(there)]))
