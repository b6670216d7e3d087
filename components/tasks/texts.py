"""Texts that a caller passes to a model, the same check for an endpoint and in process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from raypath.components.core.errors import DataError

FIX = "give a str or a list of str"


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
