"""Filter of generated text: personal data, keys and secrets are replaced before a client sees them, in a stream too.

Of a stream the end is held back while an item may begin or go on there: the last word, words before it that have a
digit or a sign of an address, and what is between them. Ordinary prose is held back by a word or two.
"""

from __future__ import annotations

import re

from raypath.components.core.columns import Redaction
from raypath.components.privacy.kinds import DEFAULT, Kind
from raypath.components.privacy.recogniser import PATTERNS, VERSION, find
from raypath.components.privacy.redactor import Redactor

CONTEXT = 96
"""Characters before an item that tell what it is, and are kept after they were shown."""
LONGEST = 20_000
"""Characters that are held back at most: a private key is longer than other items."""
_WORDS = 24
"""Words of an item at most, such as the groups of an IBAN or an address."""
_WORD = re.compile(r"\S+")
_PART = re.compile(
    r"[\d@+()\[\]{}<>:/=_\\%#*&]|^[A-Z]|[^\x00-\x7f]"
    r"|^(?i:at|dot|of|the|ext\.?|x|is|no\.?|apt\.?|-|/|st|nd|rd|th|on|number)$"
)
"""Word that may be a part of an item that goes on after it."""
_KEY = "-----BEGIN "


class OutputFilter:
    """Filter of one response. kinds: that are replaced by their name, such as <EMAIL>."""

    def __init__(self, kinds: tuple[Kind, ...] = DEFAULT) -> None:
        self._kinds = frozenset(kinds) & frozenset(PATTERNS)
        settings = Redaction(version=VERSION, kinds=tuple(kind.value for kind in Kind if kind in self._kinds))
        self._redactor = Redactor(settings)
        self._shown = self._held = ""
        self.counts: dict[str, int] = {}
        """Items by kind."""

    def push(self, text: str, last: bool = False) -> str:
        """Add generated text, and return what can be shown. last: nothing follows."""
        self._held += text
        whole = self._shown + self._held
        start = len(self._shown)
        end = len(whole) if last else max(start, start + _safe(self._held))
        spans = [span for span in find(whole, self._kinds) if span.end > start]
        # An item that reaches into what is held back may go on.
        end = min([end, *(span.start for span in spans if span.start < end < span.end and not last)])
        parts, at = [], start
        for span in spans:
            if span.start >= end:
                break
            parts += [whole[at : max(span.start, at)], span.kind.tag]
            at = span.end
            self.counts[span.kind.value] = self.counts.get(span.kind.value, 0) + 1
        shown = "".join([*parts, whole[at:end]])
        self._shown, self._held = whole[max(end - CONTEXT, 0) : end], whole[end:]
        return shown

    def arguments(self, text: str) -> str:
        """Return the arguments of a call, JSON as text, with items replaced."""
        return self._redactor.arguments(text)


def output_filter(setting: str) -> OutputFilter | None:
    """Return the filter of a response by the setting serve.filter_output; None for off."""
    if setting == "off":
        return None
    return OutputFilter((Kind.SECRET,) if setting == "secrets" else DEFAULT)


def _safe(text: str) -> int:
    """Return the length of the beginning of a text in which no item can reach what follows."""
    if (key := text.rfind(_KEY)) >= 0 and "-----END " not in text[key:]:
        return max(key, len(text) - LONGEST)
    words = list(_WORD.finditer(text))
    if not words:
        return 0
    first = len(words) - 1
    while first and len(words) - first < _WORDS and _PART.search(words[first - 1][0]):
        first -= 1
    # The word before a group may belong to it, such as that before "at".
    first = max(first - 1, 0)
    return max(words[first].start(), len(text) - LONGEST)
