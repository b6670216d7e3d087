"""Finders of names by language."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol

from raypath.components.core.columns import Language
from raypath.components.privacy.recogniser import Span


class NameFinder(Protocol):
    """Model that finds names, addresses and organisations."""

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Return what is found in each text."""
        ...


def open_finders(languages: Sequence[Language]) -> tuple[NameFinder, ...]:
    """Open the models of these languages. Raises DataError for one that is not installed."""
    return tuple(map(_finder, languages))


@cache
def _finder(language: Language) -> NameFinder:
    """Open a model, once a process."""
    if language == "en":
        from raypath.components.privacy.names.english import EnglishNames

        return EnglishNames()
    from raypath.components.privacy.names.chinese import ChineseNames

    return ChineseNames()
