"""JSON answers: validity, schemas, equality by value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import ParamsError
from raypath.components.evaluation.generation.structure import (
    NONE,
    json_fields,
    json_match,
    load_schema,
    parse,
    schema_validator,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize("text", ["", "no", "{'a': 1}", "```json\n{}\n```", "NaN", "[1,]", "{} {}", "[" * 100_000])
def test_texts_that_are_no_json(text: str) -> None:
    assert parse(text) is NONE


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"name": "a"}', 1),
        ('{"name": "a", "age": 3}', 1),
        ('{"age": 3}', 0),
        ('{"name": "a", "age": -1}', 0),
        ("x", 0),
    ],
)
def test_validity_by_a_schema(text: str, valid: int) -> None:
    assert schema_validator(SCHEMA)(text) == valid


@pytest.mark.parametrize("reference", ["https://example.org/x.json", "file:///etc/passwd", "other.json"])
def test_a_schema_fetches_nothing(reference: str) -> None:
    with pytest.raises(ParamsError, match="refers to"):
        schema_validator({"properties": {"a": {"items": [{"$ref": reference}]}}})


def test_a_schema_that_is_none() -> None:
    with pytest.raises(ParamsError, match="is not a JSON schema"):
        schema_validator({"type": "nothing"})


def test_a_schema_as_text_or_file(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    assert load_schema(str(file)) == load_schema(json.dumps(SCHEMA)) == SCHEMA
    file.write_text("[]")
    with pytest.raises(ParamsError, match="is not a JSON object"):
        load_schema(str(file))
    with pytest.raises(ParamsError, match="cannot be read"):
        load_schema(str(tmp_path / "missing.json"))


def test_json_is_compared_by_value() -> None:
    assert json_match('{"a": 1, "b": [1, 2]}', '{ "b": [1,2], "a": 1 }') == 1
    assert json_match('{"a": 1}', '{"a": true}') == 0
    assert json_match('{"a": [1, 2]}', '{"a": [2, 1]}') == 0
    assert json_match("x", "x") == 0
    assert json_match('{"a": 1, "b": 2e1}', '{"a": 1.0, "b": 20}') == 1, "one number, written in two ways"


def test_fields_are_counted_by_path() -> None:
    assert json_fields('{"a": 1, "b": {"c": "x"}}', '{"a": 1, "b": {"c": "y"}}') == 0.5
    assert json_fields('{"a": [1, 2, 2]}', '{"a": [2, 1]}') == pytest.approx(0.8)
    assert json_fields('{"a": 1}', "no JSON") == 0
    assert json_fields("no JSON", "no JSON") == 0
    assert json_fields('{"a": {}}', '{"a": {}}') == 1
