"""Schemas of requests and responses of tasks, and rows that a caller passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raypath.components.core.columns import Column
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks import responses, schemas, texts
from raypath.components.tasks.catalog import load_task
from raypath.components.tasks.objectives.params import ObjectiveParams

LABELS = ("a", "b", "c")


def _metadata(task: str = "text_classification", kind: str = "string", **fields: Any) -> ModelMetadata:
    return ModelMetadata(**{"task": task, "labels": LABELS, "label_kind": kind, "max_length": 8, **fields})


def _load(task: str = "text_classification", kind: str = "string", **objective: Any) -> Any:
    return load_task(_metadata(task, kind), ObjectiveParams(**objective))


def test_the_request_of_a_model_with_several_columns() -> None:
    kinds = ("text", "number", "boolean", "set", "category", "time")
    columns = tuple(Column(name=f"{kind} 1", kind=kind, stored=f"input.{kind}") for kind in kinds)
    made = load_task(_metadata(columns=columns, form="fields"))
    schema = made.request_type.model_json_schema()
    assert schema["description"] == "Request of /predict: rows with the model's input columns."
    row = schema["$defs"]["Row"]
    assert row["description"] == "One row; a missing value is null or left out."
    assert list(row["properties"]) == [f"{kind} 1" for kind in kinds]
    assert "required" not in row
    example = schemas.example_request({}, columns)
    request = made.request_type.model_validate(example)
    assert request.model_dump() == {"rows": [dict(zip(row["properties"], example["rows"][0].values(), strict=True))]}
    assert made.texts(request) == made.rows(example["rows"])
    assert made.rows([{"text 1": "tea"}]) == ["text 1: tea"]
    with pytest.raises(ValueError, match="Extra inputs"):
        made.request_type.model_validate({"rows": [{"other": 1}]})
    with pytest.raises(ValueError, match="Extra inputs"):
        made.request_type.model_validate({"rows": [], "text": "a"})
    wrong = {"rows": [{"other": 1}, {"other": 2}]}
    with pytest.raises(ValueError, match=r"^1 validation error"):
        made.request_type.model_validate(wrong)
    assert made.request_type is load_task(_metadata(columns=columns, form="fields")).request_type


def test_the_request_of_a_model_of_one_text() -> None:
    made = load_task(_metadata())
    assert made.request_type is schemas.Request
    assert made.texts(schemas.Request(text="a")) == ["a"]
    assert made.texts(schemas.Request(text=["a", "b"])) == ["a", "b"]
    examples = schemas.Request.model_json_schema()["properties"]["text"]["examples"]
    assert examples == ["A lovely cup of tea", ["Great!", "Arrived broken"]]
    assert schemas.example_request({"text": "x"}, ()) == {"text": "x"}
    with pytest.raises(ValueError, match="Extra inputs"):
        schemas.Request(text="a", other=1)  # type: ignore[call-arg]


def test_predictions_show_what_is_filled_in() -> None:
    found = responses.Predictions.of("m", 2, _load().predictions(np.array([[0.25, 0.5, 0.25]])))
    assert (found.model, found.version, len(found), found[0].label) == ("m", 2, 1, "b")
    assert [prediction.score for prediction in found] == [0.5]
    assert repr(found[0]) == "Prediction(label='b', score=0.5, scores={'a': 0.25, 'b': 0.5, 'c': 0.25})"
    assert repr(responses.Prediction(label=0, own=[])) == "Prediction(label=0)"  # type: ignore[call-arg]
    assert responses.Prediction(own=1).own == 1  # type: ignore[call-arg,attr-defined]
    vectors = responses.Embeddings(model="m", version=1, vectors=[[1.0], [0.5]], tokens=3)
    assert (len(vectors), vectors[1]) == (2, [0.5])


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({"a": 1}, [{"a": 1}]),
        ([{"a": 1}, {}], [{"a": 1}, {}]),
        (({"a": 1},), [{"a": 1}]),
        ([], None),
        ([{"a": 1}, "b"], None),
        ("a", None),
        (iter([{"a": 1}]), None),
    ],
)
def test_rows_are_mappings(given: object, rows: Any) -> None:
    assert texts.as_rows(given) == rows
