"""What clients send and are answered, by kind of task; the endpoint's OpenAPI page shows these."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    """What a client sends to /predict: one text or several."""

    model_config = ConfigDict(extra="forbid")

    text: str | list[str] = Field(examples=["A lovely cup of tea", ["Great!", "Arrived broken"]])


class Prediction(BaseModel):
    """The predicted label, as the training data wrote it, its probability, and that of every label."""

    label: str | int | bool
    score: float
    scores: dict[str, float]


class Response(BaseModel):
    """One prediction a text, in the order of the request."""

    model: str
    version: int
    predictions: list[Prediction]


class SetPrediction(BaseModel):
    """The labels of a text, none to all of them, and the probability of every label."""

    labels: list[str]
    scores: dict[str, float]


class SetResponse(BaseModel):
    """One prediction a text, in the order of the request."""

    model: str
    version: int
    predictions: list[SetPrediction]


class NumberPrediction(BaseModel):
    """The predicted number of each target, by its name, in the user's units."""

    values: dict[str, float]


class NumberResponse(BaseModel):
    """One prediction a text, in the order of the request."""

    model: str
    version: int
    predictions: list[NumberPrediction]
