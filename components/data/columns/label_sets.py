"""Sets of classes: what one value of a column means, whatever the format, as list<string>."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from typing import Any

import pyarrow as pa

SET = pa.list_(pa.string())


def to_sets(values: Iterable[Any], separator: str) -> pa.Array:
    """A list<string> for each value; null where it is missing or no set, see `parse_set`."""
    return pa.array([parse_set(value, separator) for value in values], SET)


def parse_set(value: Any, separator: str) -> list[str] | None:
    """The classes in the order they are met, each once, white space around them cut; None for what is no set.

    "Drama | War" -> Drama, War; '["Drama"]' and a list -> its members; 3 -> "3"; "" and "[]" -> the empty set.
    """
    if isinstance(value, str):
        cell = value.strip()
        members = _json_list(cell) if cell.startswith("[") else cell.split(separator)
    else:
        members = value if isinstance(value, list) else [value]
    names = None if members is None else [_name(member) for member in members]
    if names is None or None in names:
        return None
    return list(dict.fromkeys(name for name in names if name))


def _json_list(cell: str) -> list[Any] | None:
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _name(member: Any) -> str | None:
    """A class as text: true, 3 and 3.0 -> "true", "3" and "3"; None for what cannot name one."""
    if isinstance(member, bool):
        return str(member).lower()
    if isinstance(member, int):
        return str(member)
    if isinstance(member, float):
        return str(int(member)) if member.is_integer() else None
    return member.strip() if isinstance(member, str) and _whole(member) else None


def _whole(text: str) -> bool:
    """False for half a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def without(table: pa.Table, classes: Container[str]) -> pa.Table:
    """The table with these classes taken out of the sets in its column `label`."""
    kept = [[name for name in names if name not in classes] for names in table["label"].to_pylist()]
    return table.set_column(table.column_names.index("label"), "label", pa.array(kept, SET))
