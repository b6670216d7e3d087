"""Text of a response while it is generated: token ids to text, and stop strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

MOST_PENDING = 8
"""Tokens after which an incomplete character is shown as it is: no character has more bytes."""
_UNKNOWN = "\ufffd"
Decode = Callable[[Sequence[int]], str]


class IncrementalDecoder:
    """Decode ids in pieces, so that the texts joined are the text of all ids. Complete characters only.

    decode: Returns the text of token ids.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._shown, self._known = 0, 0
        """Ids up to `_known` have been decoded; those from `_shown` on are decoded again, for the spaces between."""

    def push(self, ids: Sequence[int], last: bool = False) -> str:
        """Return the text of these ids. last: also an incomplete character."""
        self._ids += ids
        before = self._decode(self._ids[self._shown : self._known])
        now = self._decode(self._ids[self._shown :])
        if now.endswith(_UNKNOWN) and not last and len(self._ids) - self._known <= MOST_PENDING:
            return ""
        self._shown, self._known = self._known, len(self._ids)
        return now[len(before) :]


class StopStrings:
    """Cut a text at the first stop string; what could be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False
        """True when a stop string has ended the text."""

    def push(self, text: str, last: bool = False) -> str:
        """Return what of the text can be shown. last: nothing follows."""
        if self.found:
            return ""
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        held = 0 if last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
