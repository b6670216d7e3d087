"""Words of texts, for metrics that compare them. Scripts without spaces count by character."""

from __future__ import annotations

import re
import string
import unicodedata

_SINGLE = (
    r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"  # Chinese and Japanese
)
_TOKEN = re.compile(rf"[{_SINGLE}]|[^\s{_SINGLE}]+")
_WORD = re.compile(rf"[{_SINGLE}]|[^\W_{_SINGLE}]+")
_ANY_SINGLE = re.compile(rf"[{_SINGLE}]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> str:
    """Normalize an answer as SQuAD's evaluation does: lower case, no punctuation, no articles, single spaces.

    Rajpurkar et al., SQuAD, 2016. Punctuation of all scripts is removed, as MLQA does (Lewis et al., 2019).
    """
    kept = "".join(
        c for c in text.lower() if c not in string.punctuation and not unicodedata.category(c).startswith("P")
    )
    return " ".join(_ARTICLES.sub(" ", kept).split())


def answer_tokens(text: str) -> list[str]:
    """Split a normalized answer at spaces, and Chinese and Japanese into characters."""
    return _TOKEN.findall(normalize(text))


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation; Chinese and Japanese as characters."""
    return _WORD.findall(text.lower())


def is_unspaced(texts: list[str]) -> bool:
    """Return True if most letters of some texts are Chinese or Japanese."""
    letters = sum(sum(c.isalpha() for c in text) for text in texts)
    return 2 * sum(len(_ANY_SINGLE.findall(text)) for text in texts) > letters
