"""Ranges of a text, and patterns that find them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Range = tuple[int, int]
Pattern = Callable[[str], Iterator[Range]]


def matches(pattern: str, valid: Callable[[re.Match[str]], bool] | None = None, flags: int = 0) -> Pattern:
    r"""Return a pattern that yields the group `item` of each match, or the whole match without such a group.

    valid: rejects a match. Classes such as \b are those of ASCII: a Chinese sign beside an item is no part of it.
    """
    compiled = re.compile(pattern, flags | re.ASCII)
    group: str | int = "item" if "item" in compiled.groupindex else 0

    def find(text: str) -> Iterator[Range]:
        for match in compiled.finditer(text):
            if valid is None or valid(match):
                yield match.span(group)

    return find


def joined(*patterns: Pattern) -> Pattern:
    """Return a pattern that yields what each of several yields."""

    def find(text: str) -> Iterator[Range]:
        for pattern in patterns:
            yield from pattern(text)

    return find


def only(needed: Callable[[str], object], pattern: Pattern) -> Pattern:
    """Return a pattern that is not tried on texts without what it needs, which is faster to see."""

    def find(text: str) -> Iterator[Range]:
        return pattern(text) if needed(text) else iter(())

    return find


def alphanumeric(text: str) -> str:
    """Return a text without separators."""
    return "".join(sign for sign in text if sign.isalnum())
