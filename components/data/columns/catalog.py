"""Catalog of the kinds of columns: map a name, or `package.module:Class`, to a kind.

Like tasks, a kind that a model's metadata names is imported only if it is built in, listed, or imported by this process
already: metadata may come from a stranger.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from raypath.components.core.columns import Column
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.data.named_classes import import_class, is_imported

if TYPE_CHECKING:
    from raypath.components.data.columns.kind import ColumnKind

_HERE = "raypath.components.data.columns"
KINDS = {
    "text": f"{_HERE}.text:Text",
    "category": f"{_HERE}.category:Category",
    "set": f"{_HERE}.set_kind:ClassSet",
    "number": f"{_HERE}.numeric:Number",
    "boolean": f"{_HERE}.boolean:Boolean",
    "time": f"{_HERE}.times:Time",
    "messages": f"{_HERE}.conversations.messages:Messages",
    "preference": f"{_HERE}.conversations.preference:PreferencePair",
}


@lru_cache(maxsize=64)
def kind_of(name: str) -> ColumnKind:
    """Return a kind: a name in KINDS, or `package.module:Class`. Raises ParamsError."""
    from raypath.components.data.columns.kind import ColumnKind

    path = KINDS.get(name, name)
    if ":" not in path:
        raise ParamsError(f"unknown kind {name}", fix=f"use one of {', '.join(KINDS)}, or package.module:Class")
    return import_class(path, ColumnKind, f"kind {name}")()  # type: ignore[type-abstract]


def check_kinds(columns: Iterable[Column], listed: Collection[str] = ()) -> None:
    """Raise DataError for a column of a kind that is neither built in, listed nor imported; imports nothing."""
    from raypath.components.data.columns.kind import ColumnKind

    for column in columns:
        if column.kind not in KINDS and column.kind not in listed and not is_imported(column.kind, ColumnKind):
            what = f"the model names the kind {column.kind[:100]!r} of a column, which is neither built in nor listed"
            raise DataError(what, fix="list it with the tasks (serve.tasks, RAYPATH_TASKS) if its code is yours")
