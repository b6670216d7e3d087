"""Overlap of an answer with its reference: exact match, token F1 and ROUGE-L, each from 0 to 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from raypath.components.evaluation.generation.texts import answer_tokens, normalize, words


def exact_match(reference: str, prediction: str) -> float:
    """Return 1 if both are equal after normalization, else 0."""
    return float(normalize(reference) == normalize(prediction))


def token_f1(reference: str, prediction: str) -> float:
    """Return the F1 of the tokens that both have, as SQuAD's evaluation counts them; 1 where both have none."""
    wanted, given = Counter(answer_tokens(reference)), Counter(answer_tokens(prediction))
    return _f1((wanted & given).total(), wanted.total(), given.total())


def rouge_l(reference: str, prediction: str) -> float:
    """Return ROUGE-L: the F1 of the longest common subsequence of words (Lin, ROUGE, 2004), without stemming."""
    wanted, given = words(reference), words(prediction)
    return _f1(common_subsequence(wanted, given), len(wanted), len(given))


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    Hyyrö, Bit-parallel LCS-length computation revisited, 2004: a column of the table of dynamic programming is one
    integer, whose zeros count.
    """
    places: dict[str, int] = {}
    for n, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << n
    every = column = (1 << len(first)) - 1
    for word in second:
        matched = column & places.get(word, 0)
        column = (column + matched | column - matched) & every
    return len(first) - column.bit_count()


def _f1(common: int, wanted: int, given: int) -> float:
    if not wanted and not given:
        return 1.0
    return 2 * common / (wanted + given)
