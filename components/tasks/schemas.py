"""Request and response schemas by kind of task; shown on the endpoint's OpenAPI page."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    """Request of /predict: one text or several."""

    model_config = ConfigDict(extra="forbid")

    text: str | list[str] = Field(examples=["A lovely cup of tea", ["Great!", "Arrived broken"]])


class Prediction(BaseModel):
    """Predicted label as in the training data, its probability, and that of every label."""

    label: str | int | bool
    score: float
    scores: dict[str, float]


class Response(BaseModel):
    """One prediction per text, in the order of the request."""

    model: str
    version: int
    predictions: list[Prediction]


class SetPrediction(BaseModel):
    """Predicted labels of a text, none to all of them, and the probability of every label."""

    labels: list[str]
    scores: dict[str, float]


class SetResponse(BaseModel):
    """One prediction per text, in the order of the request."""

    model: str
    version: int
    predictions: list[SetPrediction]


class NumberPrediction(BaseModel):
    """Predicted number of each target by name, in the user's units."""

    values: dict[str, float]


class NumberResponse(BaseModel):
    """One prediction per text, in the order of the request."""

    model: str
    version: int
    predictions: list[NumberPrediction]
