"""Answers as JSON: valid, valid by a schema, equal to the reference, and the fields that are right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from raypath.components.core.errors import ParamsError

NONE = object()
"""Value of a text that is not JSON."""
_SETTING = "setting json_schema"


def parse(text: str) -> Any:
    """Return the JSON value of a whole text, NONE if it is not JSON. NaN and infinity are not; 1.0 is 1."""
    try:
        return json.loads(text, parse_constant=_reject, parse_float=_number)
    except (ValueError, RecursionError):
        return NONE


def is_object(text: str) -> bool:
    """Return True for a JSON object or array."""
    return isinstance(parse(text), dict | list)


def json_match(reference: str, prediction: str) -> float:
    """Return 1 if both are equal JSON values, whatever their spaces and the order of their keys, else 0."""
    wanted, given = parse(reference), parse(prediction)
    return float(wanted is not NONE and given is not NONE and _canonical(wanted) == _canonical(given))


def json_fields(reference: str, prediction: str) -> float:
    """Return the F1 of the fields with equal values, by path; the order within arrays does not count.

    A text that is not JSON has no fields: 0, as for `json_match`.
    """
    wanted, given = (Counter(_leaves(parse(text))) for text in (reference, prediction))
    if not wanted or not given:
        return 0.0
    return 2 * (wanted & given).total() / (wanted.total() + given.total())


def schema_validator(schema: Mapping[str, Any]) -> Any:
    """Return a function from a text to 1.0 if it is valid by a JSON schema, else 0.0. Raises ParamsError.

    References to other documents are rejected: nothing is fetched.
    """
    import jsonschema  # type: ignore[import-untyped]

    outside = next((ref for ref in _references(schema) if not ref.startswith("#")), None)
    if outside is not None:
        raise ParamsError(
            f"{_SETTING} refers to {outside!r}", fix="put it under $defs, and refer to it by #/$defs/NAME"
        )
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ParamsError(f"{_SETTING} is not a JSON schema ({error.message})", fix="see json-schema.org") from None
    validator = kind(schema)

    def check(text: str) -> float:
        value = parse(text)
        try:
            return float(value is not NONE and validator.is_valid(value))
        except RecursionError:
            return 0.0

    return check


def load_schema(text: str) -> dict[str, Any]:
    """Return the schema that a setting holds as JSON text, or as the path of a file. Raises ParamsError."""
    from pathlib import Path

    content = text
    if not text.lstrip().startswith("{"):
        try:
            content = Path(text).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ParamsError(f"{_SETTING} got {text!r}, which cannot be read ({reason})", fix="give a file") from None
    found = parse(content)
    if not isinstance(found, dict):
        raise ParamsError(f"{_SETTING} got {text[:80]!r}, which is not a JSON object", fix="give a JSON schema")
    return found


def _reject(constant: str) -> None:
    raise ValueError(constant)


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if value is NONE:
        return
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _leaves(inner, (*path, "[]"))
    else:
        yield path, _canonical(value)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)
