"""Pair of texts that a tokenizer encodes together."""

from __future__ import annotations

from typing import Self


class TextPair(str):
    """Two texts that a tokenizer encodes as its pair. As a string it is both, separated by a line break.

    Limits, logs and counters treat it as a text; only the tokenizer looks at `first` and `second`.
    """

    __slots__ = ("first", "second")
    first: str
    second: str

    def __new__(cls, first: str, second: str) -> Self:
        made = super().__new__(cls, f"{first}\n{second}")
        made.first, made.second = first, second
        return made

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.first, self.second)
