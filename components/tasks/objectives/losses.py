"""Losses for single-label and multi-label classification: cross entropy with class weights, label smoothing and focal
loss, in any combination.

Label smoothing: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016, section 7. Focal loss:
Lin et al., Focal Loss for Dense Object Detection, 2017, eq. 4 and 5; each term -q log p is multiplied by (1 - p)^focal,
so that it remains a sum over classes with smoothed targets q, and focal = 0 is cross entropy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raypath.components.core.arrays import Array, Batch

EPSILON = 1e-7
"""Smallest 1 - p: the gradient of (1 - p)^focal is unbounded at 0 for focal below 1."""


def softmax_loss(logits: Any, targets: Any, weights: Any, smoothing: float, focal: float) -> Any:
    """Loss of each row, [B]. logits float32 [B, K], targets int64 [B], weights float32 [K] or None.

    Cross entropy with weights and smoothing is torch's own: -sum_c q_c w_c log p_c, q = (1 - s) onehot + s / K.
    """
    from torch.nn import functional

    if not focal:
        return functional.cross_entropy(logits, targets, weights, reduction="none", label_smoothing=smoothing)
    classes = logits.shape[1]
    wanted = functional.one_hot(targets, classes) * (1 - smoothing) + smoothing / classes  # [B, K]
    if weights is not None:
        wanted = wanted * weights
    log_p = functional.log_softmax(logits, dim=1)
    return -(wanted * _focus(log_p, focal) * log_p).sum(dim=1)


def sigmoid_loss(logits: Any, targets: Any, weights: Any, smoothing: float, focal: float) -> Any:
    """Loss of each row, [B]: mean over classes. logits float32 [B, K], targets 0 or 1 float32 [B, K].

    weights: float32 [2, K], of a class's absence and of its presence, or None. Smoothed targets are (1 - s) t + s / 2.
    """
    from torch.nn import functional

    there = targets * (1 - smoothing) + smoothing / 2
    away = 1 - there
    if weights is not None:
        away, there = away * weights[0], there * weights[1]
    log_p, log_q = functional.logsigmoid(logits), functional.logsigmoid(-logits)  # of presence, of absence
    if focal:
        there, away = there * _focus(log_p, focal), away * _focus(log_q, focal)
    return -(there * log_p + away * log_q).mean(dim=1)


def sum_rows(losses: Any, batch: Batch) -> Any:
    """Sum the losses of rows, [B], each times its weight where rows have weights."""
    weights = batch.get("row_weights")
    return losses.sum() if weights is None else (losses * weights).sum()


def _focus(log_p: Any, focal: float) -> Any:
    import torch

    return (-torch.expm1(log_p)).clamp(min=EPSILON) ** focal


def class_weights(targets: Array, classes: int) -> Array:
    """Balanced: rows / (classes * rows of the class), float64 [K], as scikit-learn's class_weight="balanced".

    targets int [N]. 0 for a class without rows, which has no term.
    """
    rows = np.bincount(targets, minlength=classes)
    return np.divide(len(targets), classes * rows, out=np.zeros(classes), where=rows > 0)


def set_weights(targets: Array) -> Array:
    """Balanced weights of each class of a set as a binary problem: [absent, present], float64 [2, K]; targets [N,
    K]."""
    there = targets.sum(axis=0, dtype=np.float64)
    rows = np.stack([len(targets) - there, there])
    return np.asarray(np.divide(len(targets), 2 * rows, out=np.zeros_like(rows), where=rows > 0))
