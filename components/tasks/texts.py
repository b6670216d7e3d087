"""Texts that a caller passes to a model, the same check for an endpoint and in process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raypath.components.core.errors import DataError

FIX = "give a str or a list of str"
Row = Mapping[str, Any]
"""Values of a row by input column, for models with several."""
Inputs = str | Row | Sequence[str] | Sequence[Row]
"""What `predict` takes: a text or several; a row or several."""


def as_texts(given: str | Iterable[str]) -> list[str]:
    """Return one text or several as a list. Raises DataError for anything else.

    Iterating over a mapping or a table yields its keys or column names, so both are rejected.
    """
    if isinstance(given, str):
        texts = [given]
    elif isinstance(given, bytes | Mapping) or hasattr(given, "columns") or not isinstance(given, Iterable):
        raise DataError(f"texts is a {type(given).__name__}", fix=FIX)
    else:
        texts = list(given)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"texts[{position}] is a {type(text).__name__}", fix=FIX)
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"texts[{position}] has half of a surrogate pair", fix="decode it as UTF-8 or UTF-16")
    return texts


def as_rows(given: object) -> list[Row] | None:
    """Return one row or several, given as mappings, as a list; None for anything else."""
    if isinstance(given, Mapping):
        return [given]
    rows = list(given) if isinstance(given, list | tuple) else []
    return rows if rows and all(isinstance(row, Mapping) for row in rows) else None
