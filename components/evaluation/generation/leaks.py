"""Training answers in generated ones: phrases that are copied word for word, and planted canaries.

Carlini et al., Extracting Training Data from Large Language Models, 2021; canaries as in Carlini et al., The Secret
Sharer, 2019.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import ParamsError
from raypath.components.evaluation.generation.texts import normalize, words

PHRASE = 12
"""Words of a phrase that counts as copied; Chinese and Japanese by character."""
COMMON = 4
"""A phrase of more training answers than this is a formula that the data teaches, not a row's content."""
_POWERS = np.cumprod(np.full(PHRASE, 0x9E3779B97F4A7C15, np.uint64))


class PhraseIndex:
    """Hashes of the phrases of training answers."""

    def __init__(self, answers: Iterable[str]) -> None:
        found = [np.unique(_phrases(answer)) for answer in answers]
        hashes, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]), return_counts=True)
        self._hashes = hashes[counts <= COMMON]
        self.rows = len(found)
        """Answers that were read."""

    def copied(self, prediction: str, allowed: Sequence[str] = ()) -> int:
        """Return the words of the longest passage that is copied from training answers; 0 below PHRASE words.

        allowed: Texts whose phrases do not count: the row's own prompt and reference.
        """
        phrases = _phrases(prediction)
        mine = np.concatenate([np.zeros(0, np.uint64), *map(_phrases, allowed)])
        # The hashes are sorted. np.isin would sort all of them again for each prediction.
        first, after = (np.searchsorted(self._hashes, phrases, side) for side in ("left", "right"))
        known = (first < after) & ~np.isin(phrases, mine)
        longest = run = 0
        for here in known:
            run = run + 1 if here else 0
            longest = max(longest, run)
        return longest + PHRASE - 1 if longest else 0


def check_canaries(canaries: Sequence[str]) -> None:
    """Raise ParamsError for a canary without letters and digits, which every text would have."""
    for canary in canaries:
        if not normalize(canary):
            raise ParamsError(f"setting canaries got {canary!r}", fix="give texts with letters or digits")


def has_canary(text: str, canaries: Sequence[str]) -> float:
    """Return 1 if a text has one of the canaries, whatever case, punctuation and spaces, else 0."""
    found = normalize(text)
    return float(any(normalize(canary) in found for canary in canaries))


def _phrases(text: str) -> Array:
    """Return a 64-bit hash of each PHRASE words in a row, uint64 [words - PHRASE + 1]."""
    codes = np.array([_code(word) for word in words(text)], np.uint64)
    if len(codes) < PHRASE:
        return np.zeros(0, np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, PHRASE)
    return np.asarray((windows * _POWERS).sum(axis=1, dtype=np.uint64))


@lru_cache(maxsize=100_000)
def _code(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
