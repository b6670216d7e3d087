"""Multi-label classification: any number of K labels per text. The class of text_classification for label kind
`set`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from raypath.components.core.arrays import Array, Batch
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.evaluation.metrics import decisions, set_metrics
from raypath.components.evaluation.thresholds import DEFAULT_THRESHOLD, one_class
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.objectives.losses import set_weights, sigmoid_loss, sum_rows
from raypath.components.tasks.schemas import SetPrediction, SetResponse
from raypath.components.tasks.text_classification import TextClassification, score_lists

if TYPE_CHECKING:
    from raypath.components.evaluation.outcomes import Outcomes


class MultiLabel(TextClassification):
    """One sigmoid per class on a sequence classification head. Targets are 0 or 1, float32 [N, K]."""

    kinds = frozenset({LabelKind.SET})
    metric = "mean_average_precision"
    lower_is_better = frozenset({"log_loss", "ece", "hamming_loss"})
    problem = "multi_label_classification"
    response = SetResponse
    plain = "labels"

    def check_targets(self, targets: Array, split: str) -> None:
        """Raise DataError for targets that are not the model's classes."""
        classes = len(self.metadata.labels)
        if targets.ndim != 2 or targets.shape[1] != classes or not np.isin(targets, (0, 1)).all():
            wanted = f"{classes} zeros and ones a row, one a class of the model"
            what = f"targets of {split} of shape {targets.shape}; wanted {wanted}"
            raise DataError(what, fix="train on the rows that the labels come from")

    def _balanced(self, targets: Array) -> Array:
        return set_weights(targets)

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Binary cross entropy, summed over rows, mean over classes. outputs and targets [B, K]."""
        how, weights = self.objective, self._weights(outputs)
        losses = sigmoid_loss(outputs.float(), batch["targets"], weights, how.label_smoothing, how.focal)
        return sum_rows(losses, batch)

    def decode(self, recorded: Array) -> Array:
        """Sigmoid. logits [B, K] -> probabilities float64 [B, K]."""
        from scipy.special import expit  # type: ignore[import-untyped]

        return np.asarray(expit(np.asarray(recorded, dtype=np.float64)))

    def metrics(self, targets: Array, decoded: Array) -> dict[str, float]:
        """Compute precision, recall and F1 in four averages and per class, and more; see `set_metrics`."""
        return set_metrics(targets, self.predicted(decoded), decoded, self.metadata.labels)

    def intervals(self, targets: Array, decoded: Array, resamples: int, seed: int) -> dict[str, float]:
        """Compute intervals of micro F1 and subset accuracy."""
        from raypath.components.evaluation.bootstrap import set_intervals

        return set_intervals(targets, self.predicted(decoded), resamples, seed)

    def outcomes(self, metric: str, targets: Array, decoded: Array, labels: tuple[str, ...] = ()) -> Outcomes:
        """Return outcomes by row for a metric; see `set_outcomes`."""
        from raypath.components.evaluation.outcomes import set_outcomes

        order, predicted, names = self._order(labels), self.predicted(decoded), labels or self.metadata.labels
        try:
            return set_outcomes(metric, targets[:, order], predicted[:, order], decoded[:, order], names)
        except KeyError:
            return Task.outcomes(self, metric, targets, decoded, labels)

    def calibrate(self, targets: Array, decoded: Array) -> ModelMetadata:
        """Choose each class's threshold with the best F1 of the class (threshold=valid)."""
        chosen = tuple(one_class(targets[:, k], decoded[:, k]) for k in range(len(self.metadata.labels)))
        return self.metadata.model_copy(update={"thresholds": chosen})

    def predicted(self, decoded: Array) -> Array:
        """Predict classes: 0 or 1, int64 [B, K]; a row may have none."""
        return (decoded >= np.array(self.metadata.thresholds or DEFAULT_THRESHOLD)).astype(np.int64)

    def predictions(self, decoded: Array) -> list[BaseModel]:
        """Build predictions: labels, and every label's probability."""
        labels, found = self.metadata.labels, []
        for row, prediction in zip(decoded, self.predicted(decoded), strict=True):
            scores = dict(zip(labels, map(float, row), strict=True))
            found.append(SetPrediction(labels=[labels[k] for k in np.flatnonzero(prediction)], scores=scores))
        return list(found)

    def columns(self, decoded: Array) -> dict[str, pa.Array]:
        """Columns `predicted` (list of classes) and `scores` (probability of every class, list of float32)."""
        return {"predicted": self._lists(self.predicted(decoded)), "scores": score_lists(decoded)}

    def target_columns(self, targets: Array) -> dict[str, pa.Array]:
        """Column `label`: class names."""
        return {"label": self._lists(targets)}

    def _lists(self, sets: Array) -> pa.Array:
        """Convert 0 or 1 [N, K] to lists of class names."""
        offsets = np.concatenate([[0], np.count_nonzero(sets, axis=1).cumsum()]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), self._names().take(pa.array(np.nonzero(sets)[1])))

    def plots(self, targets: Array, decoded: Array, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Draw reliability of all decisions, and F1 per class."""
        from raypath.components.evaluation.plots import classification as plots

        labels = self.metadata.labels
        owners = np.nonzero(targets)[1]  # a class number for each label of each row
        return {
            "reliability": plots.reliability(targets.ravel(), decisions(decoded), metrics["ece"]),
            "f1_per_class": plots.per_class(owners, [metrics[f"f1/{label}"] for label in labels], labels),
        }
