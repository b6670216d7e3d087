"""Text classification: one of K labels per text. `multi_label` has several labels per text, under the same task
name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from raypath.components.core.arrays import Array, Batch
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import LabelKind
from raypath.components.evaluation.metrics import class_metrics, missed_classes
from raypath.components.evaluation.thresholds import two_classes
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.base import Plain, Task
from raypath.components.tasks.objectives.losses import class_weights, softmax_loss, sum_rows
from raypath.components.tasks.schemas import Prediction, Response

if TYPE_CHECKING:
    from raypath.components.evaluation.outcomes import Outcomes


class TextClassification(Task):
    """Softmax over K classes on a sequence classification head. Targets are class numbers, int64 [N]."""

    name = "text_classification"
    metric = "macro_f1"
    lower_is_better = frozenset({"log_loss", "ece"})
    objectives = frozenset({"class_weights", "focal", "label_smoothing", "threshold"})
    problem = "single_label_classification"
    response: ClassVar[type[BaseModel]] = Response
    plain: ClassVar[Plain] = "label"
    weights: Array | None = None
    """Weight of each class in the loss, float64 [K]; None weights all equally."""

    def fit(self, targets: Array) -> Self:
        """Compute class weights from the training targets. Raises DataError for targets that are not classes."""
        self.check_targets(targets, "train")
        fitted = copy.copy(self)
        if self.objective.class_weights == "balanced":
            fitted.weights = self._balanced(targets)
        return fitted

    def check_targets(self, targets: Array, split: str) -> None:
        """Raise DataError for targets that are not the model's classes."""
        classes = len(self.metadata.labels)
        if not (targets.min() >= 0 and targets.max() < classes):
            span = f"{targets.min()} to {targets.max()}"
            what = f"targets of {split} go from {span}; wanted 0 to {classes - 1}, the model's classes"
            raise DataError(what, fix="train on the rows that the labels come from")

    def _balanced(self, targets: Array) -> Array:
        return class_weights(targets, len(self.metadata.labels))

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Cross entropy with weights, smoothing and focus of the objective. outputs [B, K], targets int64 [B]."""
        how, weights = self.objective, self._weights(outputs)
        losses = softmax_loss(outputs.float(), batch["targets"], weights, how.label_smoothing, how.focal)
        return sum_rows(losses, batch)

    def _weights(self, outputs: Any) -> Any:
        import torch

        if self.weights is None:
            return None
        return torch.as_tensor(self.weights, dtype=torch.float32, device=outputs.device)

    def decode(self, recorded: Array) -> Array:
        """Softmax. logits [B, K] -> probabilities float64 [B, K]."""
        wide = np.asarray(recorded, dtype=np.float64)
        wide = np.exp(wide - wide.max(axis=1, keepdims=True))
        return np.asarray(wide / wide.sum(axis=1, keepdims=True))

    def metrics(self, targets: Array, decoded: Array) -> dict[str, float]:
        """Compute accuracy, log loss, ECE, and precision, recall and F1, averaged and per class; see
        `class_metrics`."""
        return class_metrics(np.asarray(targets), self.predicted(decoded), decoded, self.metadata.labels)

    def intervals(self, targets: Array, decoded: Array, resamples: int, seed: int) -> dict[str, float]:
        """Compute intervals of accuracy and macro F1."""
        from raypath.components.evaluation.bootstrap_classes import intervals

        return intervals(targets, self.predicted(decoded), len(self.metadata.labels), resamples, seed)

    def outcomes(self, metric: str, targets: Array, decoded: Array, labels: tuple[str, ...] = ()) -> Outcomes:
        """Return outcomes by row for a metric; see `class_outcomes`."""
        from raypath.components.evaluation.outcomes import class_outcomes

        order, predicted = self._order(labels), self.predicted(decoded)
        place = np.argsort(order)  # of a class in `labels`
        try:
            return class_outcomes(
                metric, place[np.asarray(targets)], place[predicted], decoded[:, order], labels or self.metadata.labels
            )
        except KeyError:
            return super().outcomes(metric, targets, decoded, labels)

    def warnings(self, targets: Array, decoded: Array) -> list[str]:
        """Name the classes that are never predicted."""
        missed = missed_classes(np.asarray(targets), self.predicted(decoded), self.metadata.labels)
        if not missed:
            return []
        names = ", ".join(missed[:5]) + (f" and {len(missed) - 5} others" if len(missed) > 5 else "")
        what = f"the model never predicts {'class' if len(missed) == 1 else 'classes'} {names} on the test split"
        return [f"{what}; try more epochs (finetune.epochs), -s finetune.objective.class_weights=balanced or more rows"]

    def calibrate(self, targets: Array, decoded: Array) -> ModelMetadata:
        """Choose the threshold of the second class with the best macro F1 (threshold=valid)."""
        return self.metadata.model_copy(update={"thresholds": (two_classes(targets, decoded[:, 1]),)})

    def predicted(self, decoded: Array) -> Array:
        """Predict class numbers int64 [B]: the likeliest class, or for two classes the second from its threshold on."""
        if self.metadata.thresholds:
            return (decoded[:, 1] >= self.metadata.thresholds[0]).astype(np.int64)
        return np.asarray(decoded.argmax(axis=1))

    def predictions(self, decoded: Array) -> list[BaseModel]:
        """Build predictions: label, its probability, and every label's."""
        rows = zip(decoded, self.predicted(decoded), strict=True)
        return [self._prediction(row, int(prediction)) for row, prediction in rows]

    def _prediction(self, row: Array, prediction: int) -> Prediction:
        labels = self.metadata.labels
        scores = dict(zip(labels, map(float, row), strict=True))
        return Prediction(
            label=self.metadata.label_kind.restore(labels[prediction]), score=float(row[prediction]), scores=scores
        )

    def columns(self, decoded: Array) -> dict[str, pa.Array]:
        """Columns `predicted` (class), `score` (its probability, float32), `scores` (of every class, list of
        float32)."""
        predictions = self.predicted(decoded)
        return {
            "predicted": self._names().take(pa.array(predictions)),
            "score": pa.array(decoded[np.arange(len(decoded)), predictions].astype(np.float32)),
            "scores": score_lists(decoded),
        }

    def target_columns(self, targets: Array) -> dict[str, pa.Array]:
        """Column `label`: class name."""
        return {"label": self._names().take(pa.array(targets))}

    def _names(self) -> pa.Array:
        return pa.array(self.metadata.labels, pa.string())

    def plots(self, targets: Array, decoded: Array, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Draw the confusion matrix, the reliability diagram and F1 per class."""
        from raypath.components.evaluation.plots import classification as plots

        labels = self.metadata.labels
        return {
            "confusion": plots.confusion(targets, self.predicted(decoded), labels),
            "reliability": plots.reliability(targets, decoded, metrics["ece"]),
            "f1_per_class": plots.per_class(targets, [metrics[f"f1/{label}"] for label in labels], labels),
        }

    def _check(self) -> None:
        super()._check()
        classes = len(self.metadata.labels)
        if self.objective.threshold != "none" and self.metadata.label_kind is not LabelKind.SET and classes != 2:
            what = f"objective.threshold=valid takes two classes, or several labels a row; got {classes} classes"
            raise ParamsError(what, fix="leave finetune.objective.threshold out")


def score_lists(decoded: Array) -> pa.Array:
    """Convert float [N, K] to a column of lists of float32."""
    flat = pa.array(decoded.astype(np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, decoded.shape[1]).cast(pa.list_(pa.float32()))
