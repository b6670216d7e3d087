"""Head fitted to features of the encoder: a logistic regression whose L2 penalty is chosen by cross-validation.

The problem is convex, so that the head depends on nothing but the features: no learning rate, no epochs, no seed of
its weights. The features are what the head's last linear layer reads: the mean state of all tokens
(`models/heads/pooling_layer.py`), scaled to length one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.models.heads.pooling_layer import SQUEEZE, output_layer
from raypath.components.tasks.base import Task
from raypath.components.training.batches.epoch_plan import plan_validation
from raypath.components.training.batches.token_dataset import TokenRows

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Values of C, the inverse of the L2 penalty on features of length one."""
FOLDS = 5
FIT_ROWS, SEARCH_ROWS = 20_000, 2_000
"""Rows that the head is fitted to, and those that its penalty is chosen by, at most: random ones."""
ABSENT = -10.0
"""Logit, below those of the other classes, of a class without rows."""


def fit_head(task: Task, model: Any, rows: TokenRows, budget: int, pad: int, bf16: bool, seed: int) -> float:
    """Fit the last linear layer of a classifier to its features of `rows`; return C.

    budget: tokens a batch. Raises DataError for rows of a single class.
    """
    import torch

    if len(rows) > FIT_ROWS:
        rows = rows.subset(np.sort(np.random.default_rng(seed).permutation(len(rows))[:FIT_ROWS]))
    features, targets = head_features(model, rows, budget, pad, bf16), np.asarray(rows.targets)
    weights = np.ones(len(rows)) if rows.weights is None else np.asarray(rows.weights, np.float64)
    scale = 1 / (SQUEEZE * np.sqrt(features.shape[1]))
    balanced = task.objective.class_weights == "balanced"
    strength = best_strength(features * scale, targets, weights, balanced, seed)
    weight, bias = linear_layer(features * scale, targets, weights, len(task.metadata.labels), strength, balanced)
    layer = output_layer(model)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight * scale))
        layer.bias.copy_(torch.from_numpy(bias))
    return strength


def head_features(model: Any, rows: TokenRows, budget: int, pad: int, bf16: bool) -> Array:
    """Compute what the head's last linear layer reads, float32 [N, H], in the order of the rows."""
    import torch

    found: list[tuple[Array, Array]] = []
    given: list[Any] = []
    training, device = model.training, next(model.parameters()).device
    hook = output_layer(model).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for chosen in plan_validation(rows, budget):
                batch = rows.batch(chosen, pad)
                model(**{name: batch[name].to(device) for name in ("input_ids", "attention_mask")})
                found.append((chosen, given.pop().float().cpu().numpy()))
    finally:
        hook.remove()
        model.train(training)
    states = np.empty((len(rows), found[0][1].shape[1]), np.float32)
    for chosen, part in found:
        states[chosen] = part
    return states


def best_strength(features: Array, targets: Array, weights: Array, balanced: bool, seed: int) -> float:
    """Return the C of STRENGTHS with the smallest log loss of held-out rows; 1 where no class has two rows.

    features float [N, H] of length one; targets int [N]; weights float [N] of the rows. A class with a single row is
    left out.
    """
    from sklearn.model_selection import StratifiedKFold

    drawn = np.sort(np.random.default_rng(seed).permutation(len(targets))[:SEARCH_ROWS])
    counts = np.bincount(targets[drawn])
    counts = np.pad(counts, (0, int(targets.max()) + 1 - len(counts)))
    usable = drawn[counts[targets[drawn]] >= 2]
    if len(np.unique(targets[usable])) < 2:
        return 1.0
    features, targets, weights = features[usable], targets[usable], weights[usable]
    least = int(counts[np.unique(targets)].min())
    folds = StratifiedKFold(min(FOLDS, least), shuffle=True, random_state=seed)
    losses = np.zeros(len(STRENGTHS))
    for train, held_out in folds.split(features, targets):
        for n, strength in enumerate(STRENGTHS):
            made = _regression(strength, balanced).fit(features[train], targets[train], weights[train])
            losses[n] += _log_loss(made, features[held_out], targets[held_out], weights[held_out])
    return STRENGTHS[int(losses.argmin())]


def linear_layer(
    features: Array, targets: Array, weights: Array, classes: int, strength: float, balanced: bool
) -> tuple[Array, Array]:
    """Fit a logistic regression; return weights float32 [K, H] and biases [K]. features [N, H], targets int [N].

    A class without rows gets a low bias. Raises DataError for a single class.
    """
    present = np.unique(targets)
    if len(present) < 2:
        raise DataError("the train split has rows of one class only", fix="give rows of at least two classes")
    made = _regression(strength, balanced).fit(features, targets, weights)
    weight, bias = np.asarray(made.coef_), np.asarray(made.intercept_)
    if len(present) == 2:  # one logit, of the second class
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    full, biases = np.zeros((classes, features.shape[1])), np.full(classes, bias.min() + ABSENT)
    full[present], biases[present] = weight, bias
    return full.astype(np.float32), biases.astype(np.float32)


def _regression(strength: float, balanced: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000, class_weight="balanced" if balanced else None)


def _log_loss(made: Any, features: Array, targets: Array, weights: Array) -> float:
    """Weighted sum of -log p over rows; a class that training rows lack counts as p = 1e-6."""
    probabilities = made.predict_proba(features)
    place = np.searchsorted(made.classes_, targets)
    place = np.minimum(place, len(made.classes_) - 1)
    own = np.where(made.classes_[place] == targets, probabilities[np.arange(len(targets)), place], 0.0)
    return float(-(weights * np.log(np.maximum(own, 1e-6))).sum())
