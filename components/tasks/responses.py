"""Typed responses of a model, the same from an endpoint (`Client`) and in process (`load`). pydantic only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict


class Prediction(BaseModel):
    """The prediction for one text; which fields are filled in depends on the task.

    Classification: `label`, `score`, `scores`. Multi-label: `labels`, `scores`. Regression: `values`. Fields of a
    task of your own are attributes under their own names.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    label: str | int | bool | None = None
    """The predicted class, of the type that the training data had."""
    score: float | None = None
    """Probability of `label`."""
    labels: list[str] = []
    """The predicted classes of a multi-label model."""
    scores: dict[str, float] = {}
    """Probability of every class."""
    values: dict[str, float] = {}
    """The predicted number of each target, in the units of the training data."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show the fields that are filled in."""
        return ((name, value) for name, value in super().__repr_args__() if value not in (None, [], {}))


class Predictions(BaseModel):
    """Predictions in the order of the texts: `len(found)`, `found[0]` and `for prediction in found` work."""

    model_config = ConfigDict(frozen=True)

    model: str
    """Name in the registry, or the folder's name."""
    version: int
    """Version in the registry; 0 for a model folder."""
    predictions: list[Prediction]

    def __len__(self) -> int:
        return len(self.predictions)

    def __getitem__(self, index: int) -> Prediction:
        return self.predictions[index]

    def __iter__(self) -> Iterator[Prediction]:  # type: ignore[override]
        return iter(self.predictions)

    @classmethod
    def of(cls, model: str, version: int, predictions: list[BaseModel]) -> Predictions:
        """Convert a task's own predictions."""
        plain: list[dict[str, Any]] = [prediction.model_dump(mode="json") for prediction in predictions]
        return cls.model_validate({"model": model, "version": version, "predictions": plain})


class Embeddings(BaseModel):
    """One unit-length vector a text, in the order of the texts."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    """Vectors of two versions are not comparable."""
    vectors: list[list[float]]
    tokens: int
    """Tokens of all texts, special ones included."""

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> list[float]:
        return self.vectors[index]
