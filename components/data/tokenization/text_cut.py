"""Cuts of long texts before tokenization: a prefix whose tokens are the first tokens of the text.

A text that is cut where a word ends has the tokens of its words up to there, since no token spans two words. A prefix
that fills a row therefore gives the same row as the text; a prefix that does not is extended (`TextTokenizer.encode`).
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

CHARACTERS = 8
"""Characters of a first cut for each token of a row; texts of most languages have fewer."""
GROWTH = 4
"""Factor by which a cut grows that was too short."""
_SPACES = " \t\n\r"
_WINDOW = 256
"""Characters before a cut that are searched for a boundary other than a space."""
_MAX_ADDED = 100
"""Added tokens up to which cuts other than at spaces are made."""
_WORDS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
"""Pre-tokenizers that split at spaces in any case."""
_CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0xF900, 0xFAFF))


class TextCut:
    """Positions at which texts may be cut for a tokenizer.

    Texts stay whole for a tokenizer that is not known to split at spaces, or that truncates at the beginning of a text
    (`right` is False).
    """

    def __init__(self, backend: Any, right: bool = True) -> None:
        steps = _steps(backend.pre_tokenizer)
        # Special tokens are encoded as texts.
        added = [token for token in backend.get_added_tokens_decoder().values() if not token.special]
        self._added = [token.content for token in added]
        """Found in a text before it is split, so that a cut must not divide one."""
        spaced = any(space in content for content in self._added for space in _SPACES)
        self.at_spaces = right and not spaced and any(map(_splits_at_spaces, steps))
        """Words are split at spaces."""
        fixed = len(added) <= _MAX_ADDED and not any(token.normalized for token in added)
        self.at_marks = self.at_spaces and fixed and [step["type"] for step in steps] == ["BertPreTokenizer"]
        """Each punctuation mark is a word."""
        normalizer = _state(backend.normalizer)
        self.at_cjk = self.at_marks and normalizer.get("handle_chinese_chars") is True
        """Each CJK ideograph is a word."""

    def prefix(self, text: str, size: int) -> str:
        """Return a prefix of about this many characters that ends with a word; the text if there is none."""
        if len(text) <= size or not self.at_spaces:
            return text
        end = max(text.rfind(space, size // 2, size) for space in _SPACES)
        if end < 0 and self.at_marks:
            window = range(size, max(size - _WINDOW, 0), -1)
            end = next((n for n in window if self._is_word(text[n - 1]) and not self._divides(text, n)), -1)
        return text if end < 0 else text[:end]

    def _is_word(self, character: str) -> bool:
        code = ord(character)
        if code < 128:
            return not (character.isalnum() or code <= 32 or code == 127)
        if self.at_cjk and any(first <= code <= last for first, last in _CJK):
            return True
        # Punctuation of an early Unicode version, which every tokenizer knows.
        return unicodedata.ucd_3_2_0.category(character).startswith("P")

    def _divides(self, text: str, end: int) -> bool:
        """Return True if an added token, such as a word of the base's authors, begins before a position and ends after
        it."""
        return any(text.find(token, max(end - len(token) + 1, 0), end + len(token) - 1) >= 0 for token in self._added)


def _steps(pre_tokenizer: Any) -> list[dict[str, Any]]:
    state = _state(pre_tokenizer)
    steps = state.get("pretokenizers", [state]) if state else []
    return [step for step in steps if isinstance(step, dict) and "type" in step]


def _splits_at_spaces(step: dict[str, Any]) -> bool:
    kind = step["type"]
    return (
        kind in _WORDS
        or (kind == "ByteLevel" and step.get("use_regex", True) is True)
        or (kind == "Metaspace" and step.get("split", True) is True)
    )


def _state(part: Any) -> dict[str, Any]:
    """Return a part of a tokenizer as in tokenizer.json, {} for None."""
    found = json.loads(part.__getstate__()) if part is not None else {}
    return found if isinstance(found, dict) else {}
