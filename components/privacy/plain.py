"""Plain form of a text, in which patterns search: ASCII digits, letters, spaces and dashes, without invisible signs."""

from __future__ import annotations

import re
from dataclasses import dataclass

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
_ZEROS = (0x660, 0x6F0, 0x966, 0x9E6, 0xE50)
"""Code of zero in Arabic, Persian, Devanagari, Bengali and Thai."""
_PLAIN = {
    # Fullwidth signs are 65,248 above ASCII.
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(map(ord, _DASHES), "-"),
    **dict.fromkeys(map(ord, _SPACES), " "),
    **{zero + n: str(n) for zero in _ZEROS for n in range(10)},
    ord("\u2236"): ":",
    ord("\ufe55"): ":",
}
_HIDDEN = re.compile(f"[{_INVISIBLE}]+")


@dataclass(frozen=True)
class Plain:
    """Plain text. offsets: for each of its signs, and its end, the position in the original; None if they are equal."""

    text: str
    offsets: list[int] | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Convert a range of the plain text to one of the original."""
        if self.offsets is None:
            return start, end
        return self.offsets[start], self.offsets[end - 1] + 1


def plain(text: str) -> Plain:
    """Return the plain form of a text."""
    if text.isascii():
        return Plain(text)
    made = text.translate(_PLAIN)
    if not _HIDDEN.search(made):
        return Plain(made)
    offsets = [n for n, sign in enumerate(made) if sign not in _INVISIBLE]
    return Plain("".join(made[n] for n in offsets), [*offsets, len(made)])
