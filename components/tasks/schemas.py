"""Request and response schemas by kind of task; shown on the endpoint's OpenAPI page."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, create_model

from raypath.components.core.columns import Column, is_single_text
from raypath.components.core.errors import ParamsError
from raypath.components.data.columns.catalog import kind_of

_STRICT = ConfigDict(extra="forbid", serialize_by_alias=True)


class Request(BaseModel):
    """Request of /predict: one text or several."""

    model_config = ConfigDict(extra="forbid")

    text: str | list[str] = Field(examples=["A lovely cup of tea", ["Great!", "Arrived broken"]])


def example_request(plain: dict[str, Any], columns: tuple[Column, ...]) -> dict[str, Any]:
    """Return a made-up request for a model with these input columns; `plain` for a single text."""
    if is_single_text(columns):
        return plain
    return {"rows": [{column.name: kind_of(column.kind).example for column in columns}]}


@lru_cache(maxsize=64)
def request_type(plain: type[BaseModel], columns: tuple[Column, ...]) -> type[BaseModel]:
    """Return the request schema of a model: `plain` for a single text, else rows with a field per input column."""
    if is_single_text(columns):
        return plain
    fields: dict[str, Any] = {
        f"column_{n}": (kind.request | None, Field(default=None, alias=column.name, examples=[kind.example]))
        for n, column in enumerate(columns)
        for kind in [kind_of(column.kind)]
    }
    row = create_model("Row", __config__=_STRICT, __doc__="One row; a missing value is null or left out.", **fields)
    rows: Any = list[row]
    doc = "Request of /predict: rows with the model's input columns."
    return create_model("RowsRequest", __config__=_STRICT, __doc__=doc, rows=(rows, Field(fail_fast=True)))


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


class NotServed:
    """Descriptor in place of the request and response schemas of a task without an endpoint: to read it is an error."""

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix

    def __get__(self, instance: object, owner: object) -> NoReturn:
        raise self.error()

    def error(self) -> ParamsError:
        """Return the error."""
        return ParamsError(self.what, fix=self.fix)
