"""Answers that are one of few: the choice that an answer makes, and its accuracy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.evaluation.bootstrap import ratio
from raypath.components.evaluation.generation.texts import normalize

MOST_CHOICES, LEAST_ROWS, LONGEST = 20, 3, 60
"""Most choices, fewest rows a choice on average, and longest choice in characters, for answers to be one of few."""


def find_choices(references: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct answers, the most frequent first, if they are few and short; else ()."""
    counts = Counter(map(normalize, references))
    few = 2 <= len(counts) <= MOST_CHOICES and len(references) >= LEAST_ROWS * len(counts)
    if not few or "" in counts or max(map(len, counts)) > LONGEST:
        return ()
    return tuple(choice for choice, _ in counts.most_common())


def chosen(prediction: str, choices: Sequence[str]) -> int:
    """Return the number of the choice that an answer makes, -1 if none.

    It is the choice that the answer equals, or the only one that it names; a choice within a longer one that is named
    too does not count, as in "not good".
    """
    text = normalize(prediction)
    if text in choices:
        return list(choices).index(text)
    named = [n for n, choice in enumerate(choices) if _names(text, choice)]
    longest = [n for n in named if not any(n != m and _names(choices[m], choices[n]) for m in named)]
    return longest[0] if len(longest) == 1 else -1


def choice_counts(references: Sequence[str], predictions: Sequence[str], choices: Sequence[str]) -> Array:
    """Return [N, 3 K]: for each choice 1 if it is right, if it is made, and if both."""
    right = np.array([chosen(text, choices) for text in references])
    made = np.array([chosen(text, choices) for text in predictions])
    there, given = (each[:, None] == np.arange(len(choices)) for each in (right, made))
    return np.concatenate([there, given, there & given], axis=1).astype(np.float64)


def accuracy(sums: Array) -> Array:
    """Compute the share of right choices of sums of counts, [R, 3 K] -> [R]."""
    there, _, both = np.split(sums, 3, axis=1)
    return ratio(both.sum(axis=1), there.sum(axis=1))


def macro_f1(sums: Array) -> Array:
    """Compute the mean F1 of the choices of sums of counts, [R, 3 K] -> [R]."""
    there, given, both = np.split(sums, 3, axis=1)
    return np.asarray(ratio(2 * both, there + given).mean(axis=1))


def _names(text: str, choice: str) -> bool:
    if choice.isascii():
        return re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", text) is not None
    return choice in text
