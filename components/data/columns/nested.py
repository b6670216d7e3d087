"""Nested fields under dotted names: `message.body` is the key body of the object, or struct, in the column message."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_KEYS = 32
"""Keys of an object above which it is a value, such as a map from ids, and not a group of fields."""


def key_names(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of an object; for a nested object the dotted names of its fields."""
    for key, value in row.items():
        if isinstance(value, dict) and 0 < len(value) <= _KEYS:
            yield from key_names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def has_key(row: Mapping[str, Any], name: str) -> bool:
    """Return True if the object has this key or dotted name, also where its value is null."""
    return name in row or any(has_key(inner, rest) for inner, rest in _inside(row, name))


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a key or a dotted name; None if there is none. A key that has the dots comes first."""
    if name in row:
        return row[name]
    return next((value_of(inner, rest) for inner, rest in _inside(row, name) if has_key(inner, rest)), None)


def _inside(row: Mapping[str, Any], name: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the nested objects that a dotted name may lead into, with the rest of the name."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        inner = row.get(".".join(parts[:count]))
        if isinstance(inner, dict):
            yield inner, ".".join(parts[count:])


def field_names(schema: pa.Schema, wanted: Collection[str] = ()) -> list[str]:
    """Return the column names of a schema; for a struct the dotted names of its fields, unless it is wanted whole."""
    names = [name for field in schema for name in _leaves(field, field.name)]
    return [*names, *(name for name in wanted if name not in names and name in schema.names)]


def _leaves(field: pa.Field, name: str) -> Iterator[str]:
    if pa.types.is_struct(field.type) and 0 < field.type.num_fields <= _KEYS:
        for inner in field.type:
            yield from _leaves(inner, f"{name}.{inner.name}")
    else:
        yield name


def columns_of(schema: pa.Schema, names: Collection[str]) -> list[str]:
    """Return the columns of a schema that contain these names, each once."""
    known = set(schema.names)
    return list(dict.fromkeys(_column(known, name) for name in names))


def _column(columns: Collection[str], name: str) -> str:
    parts = name.split(".")
    heads = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((head for head in heads if head in columns), name)


def field_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column, or the field that a dotted name stands for; null where the struct is null."""
    position = table.schema.get_field_index(name)  # of thousands of columns, a list of their names takes long
    head = name if position >= 0 else _column(table.column_names, name)
    found = table.column(position if position >= 0 else head)
    rest = name[len(head) + 1 :]
    while rest:
        fields = [field.name for field in found.type]
        inner = _column(fields, rest)
        found, rest = pc.struct_field(found, [fields.index(inner)]), rest[len(inner) + 1 :]
    return found
