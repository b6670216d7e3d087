"""One text, one label out of K."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from components.tasks.bases import build_model


class Request(BaseModel):
    """What a client sends to /predict: one text or several."""

    model_config = ConfigDict(extra="forbid")

    text: str | list[str] = Field(examples=["A lovely cup of tea", ["Great!", "Arrived broken"]])


class Prediction(BaseModel):
    """The likeliest label, as the training data wrote it, and the probability of every label."""

    label: str | int | bool
    score: float
    scores: dict[str, float]


class Response(BaseModel):
    """One prediction a text, in the order of the request."""

    model: str
    version: int
    predictions: list[Prediction]


class TextClassification:
    """Softmax over K classes on a sequence classification head."""

    name = "text_classification"
    request = Request
    response = Response

    def build(self, folder: str, labels: tuple[str, ...], dropout: float | None) -> Any:
        """AutoModelForSequenceClassification with one output a label."""
        return build_model("AutoModelForSequenceClassification", folder, labels, dropout)

    def loss(self, logits: Any, targets: Any) -> Any:
        """Cross entropy, the mean over the rows. logits float [B, K], targets int64 [B]."""
        import torch

        return torch.nn.functional.cross_entropy(logits.float(), targets)

    def decode(self, logits: Any) -> np.ndarray[Any, Any]:
        """Softmax. logits [B, K] -> probabilities float64 [B, K]."""
        wide = np.asarray(logits, dtype=np.float64)
        wide = np.exp(wide - wide.max(axis=1, keepdims=True))
        return np.asarray(wide / wide.sum(axis=1, keepdims=True))

    def metrics(self, targets: Any, decoded: Any, labels: tuple[str, ...]) -> dict[str, float]:
        """Accuracy, macro, micro and weighted precision, recall and F1, the same per class, log loss and ECE.

        targets int [B]; decoded probabilities [B, K]. Precision, recall and F1 by scikit-learn, 0 where undefined.
        """
        from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

        targets = np.asarray(targets)
        guesses = decoded.argmax(axis=1)
        classes = list(range(len(labels)))
        found = {
            "accuracy": float(accuracy_score(targets, guesses)),
            "log_loss": float(log_loss(targets, decoded, labels=classes)),
            "ece": calibration_error(targets, decoded),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for average in ("macro", "micro", "weighted"):
                p, r, f, _ = precision_recall_fscore_support(
                    targets, guesses, labels=classes, average=average, zero_division=0.0
                )
                found |= {f"{average}_precision": float(p), f"{average}_recall": float(r), f"{average}_f1": float(f)}
            each = precision_recall_fscore_support(targets, guesses, labels=classes, average=None, zero_division=0.0)
        for label, p, r, f in zip(labels, *each[:3], strict=True):
            found |= {f"precision/{label}": float(p), f"recall/{label}": float(r), f"f1/{label}": float(f)}
        return found


def calibration_error(targets: Any, decoded: Any, bins: int = 15) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over equal-width bins, weighted by rows.

    Guo et al., On Calibration of Modern Neural Networks, 2017, eq. 3.
    """
    confidence = decoded.max(axis=1)  # float64 [B]
    right = decoded.argmax(axis=1) == np.asarray(targets)
    slot = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = 0.0
    for b in np.unique(slot):
        inside = slot == b
        gap += abs(float(confidence[inside].mean()) - float(right[inside].mean())) * float(inside.mean())
    return gap


def as_given(label: str, kind: str) -> str | int | bool:
    """A label as the user's data wrote it: "3" -> 3 for kind int, "true" -> True for kind bool."""
    if kind == "int":
        return int(label)
    return label == "true" if kind == "bool" else label
