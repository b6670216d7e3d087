"""Check of JSON schemas of requests, for engines that make grammars of them."""

from __future__ import annotations

import json

from raypath.components.core.errors import DataError

MOST_CHARACTERS = 100_000
"""Most characters of a schema."""


def check_schema(schema: str) -> None:
    """Raise DataError for a text that is no JSON schema, or a very long one."""
    import jsonschema  # type: ignore[import-untyped]

    try:
        if len(schema) > MOST_CHARACTERS:
            raise ValueError(f"it has {len(schema):,} characters; wanted at most {MOST_CHARACTERS:,}")
        read = json.loads(schema)
        kind = jsonschema.validators.validator_for(read, default=jsonschema.Draft202012Validator)
        kind.check_schema(read)
    except (ValueError, RecursionError, jsonschema.SchemaError) as error:
        reason = getattr(error, "message", "") or str(error)
        raise DataError(f"the JSON schema is none ({reason})", fix="see json-schema.org") from None


def no_grammar(reason: str) -> DataError:
    """Error of a schema that an engine has no grammar for."""
    return DataError(f"the JSON schema has no grammar ({reason})", fix="use a simpler schema")
