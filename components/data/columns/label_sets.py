"""Label sets: parse a cell, a JSON list or a list column into a set of classes, stored as list<string>."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import Any

import pyarrow as pa

from raypath.components.data.columns.values import class_name

SET_TYPE = pa.list_(pa.string())


def to_sets(values: Iterable[Any], separator: str) -> pa.Array:
    """Convert values to list<string>; null for a missing value or one that is not a set, see `parse_set`."""
    return pa.array([parse_set(value, separator) for value in values], SET_TYPE)


def parse_set(value: Any, separator: str) -> list[str] | None:
    """Parse a value as a list of distinct class names in their first order, stripped; None if it is not a set.

    "Drama | War" gives Drama and War; '["Drama"]' and a list give their members; 3 gives "3"; "" and "[]" give the
    empty set.
    """
    if isinstance(value, str):
        cell = value.strip()
        members = _json_list(cell) if cell.startswith("[") else cell.split(separator)
    else:
        members = value if isinstance(value, list) else [value]
    names = None if members is None else [class_name(member) for member in members]
    if names is None or None in names:
        return None
    return list(dict.fromkeys(name for name in names if name))


def _json_list(cell: str) -> list[Any] | None:
    try:
        parsed = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list) else None


def remove_classes(table: pa.Table, classes: Container[str]) -> pa.Table:
    """Remove these classes from the sets in the column `label`."""
    kept = [[name for name in names if name not in classes] for names in table["label"].to_pylist()]
    return table.set_column(table.column_names.index("label"), "label", pa.array(kept, SET_TYPE))


def pack_one_hot(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Replace boolean columns, one a class, by a column `label` of sets; null where one of them is null.

    names: the class of each column.
    """
    if not names:
        return table
    rows = zip(*(table[column].to_pylist() for column in names), strict=True)
    classes = list(names.values())
    sets = [
        None if None in row else [name for name, member in zip(classes, row, strict=True) if member] for row in rows
    ]
    return table.drop_columns(list(names)).append_column("label", pa.array(sets, SET_TYPE))
