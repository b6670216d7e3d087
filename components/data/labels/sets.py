"""Label sets: parse a cell, a JSON list or a list column into a set of classes, stored as list<string>."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Container, Iterable, Mapping
from typing import Any

import pyarrow as pa

from raypath.components.data.columns.values import class_name

_ITEM = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|-?(?:0|[1-9]\d*)(?:\.\d*)?""")
"""A string or a number in Python's notation."""
_LIST = re.compile(rf"[\[({{]\s*(?:(?:{_ITEM.pattern})(?:\s*,\s*|\s+|(?=\s*[\])}}])))*[\])}}]")
SET_TYPE = pa.list_(pa.string())


def to_sets(values: Iterable[Any], separator: str) -> pa.Array:
    """Convert values to list<string>; null for a missing value or one that is not a set, see `parse_set`."""
    return pa.array([parse_set(value, separator) for value in values], SET_TYPE)


def parse_set(value: Any, separator: str) -> list[str] | None:
    """Parse a value as a list of distinct class names in their first order, stripped; None if it is not a set.

    "Drama | War" gives Drama and War; '["Drama"]', Python's "['Drama']", as pandas writes lists, and a list give their
    members; 3 gives "3"; "" and "[]" give the empty set.
    """
    if isinstance(value, str):
        cell = value.strip()
        members = _members(cell, separator)
    else:
        members = value if isinstance(value, list) else [value]
    names = None if members is None else [class_name(member) for member in members]
    if names is None or None in names:
        return None
    return list(dict.fromkeys(name for name in names if name))


def _members(cell: str, separator: str) -> list[Any] | None:
    if cell.startswith("["):
        parsed = _json_list(cell)
        return _python_list(cell) if parsed is None else parsed
    if cell[:2] in ("('", '("', "{'", '{"') or cell in ("set()", "()"):
        # A tuple or a set; anything else that begins so is text.
        parsed = _python_list(cell)
        return cell.split(separator) if parsed is None else parsed
    return cell.split(separator)


def _python_list(cell: str) -> list[Any] | None:
    """Parse a list, tuple or set of strings and numbers as Python writes it; None for anything else.

    NumPy writes arrays without commas, which Python would join to one string.
    """
    if cell in ("set()", "()"):
        return []
    if cell[0] + cell[-1] not in ("[]", "()", "{}") or not _LIST.fullmatch(cell):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # an unknown escape
            return [ast.literal_eval(item) for item in _ITEM.findall(cell)]
    except (ValueError, SyntaxError):
        return None


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
