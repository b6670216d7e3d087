"""Words that give a label away, such as a ticket number that only one class has.

In natural texts many words are of one class only, such as the names of teams in a topic: they come with other words of
that topic. A word is reported only if it is a mark beside the text:

- most of its rows have no other word that is so certain, since a vocabulary of its own is what makes a class, and
- it is in most rows of the class, or says nothing about the other words of the row: within the class no word is more
  frequent in its rows than elsewhere, apart from a fixed phrase that the word is a part of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.data.wording import percent, plural, verb
from raypath.components.inspection.findings.make import Found, finding
from raypath.components.inspection.report import Severity
from raypath.components.inspection.rows import SHOWN
from raypath.components.inspection.statistics import Statistics

_PURITY = 0.99
"""Share of the rows with a word that have one class, from which the word gives it away."""
_SUPPORT = 25
"""Fewest rows with the word."""
_SERIOUS = 0.2
"""Share of a class that has the word, from which the metrics are worth nothing."""
_MOST = 0.8
"""Share of a class that no word of natural texts has, if other classes do not have it."""
_ALONE = 0.5
"""Share of the rows of a mark, at least, that have no word of another mark of the class."""
_SAME = 0.8
"""Share of the rows in common from which two words are one mark, and of its rows that have a word of its phrase."""
_CHANCE = 1e-6
"""Probability by chance, for all words together, below which one class of all rows is no coincidence."""
_COMPANION = 1e-3
"""The same for a word that is more frequent in the rows of a mark."""
_LOOKED_AT = 200
"""Most words that are looked at, the most frequent ones."""


@dataclass(frozen=True)
class _Counts:
    """Words of the labelled rows of a sample.

    of, number: int [W], row and word of each pair; codes: int [R], class of each row; words: uint64 [V]; sizes: int
    [V], rows with the word.
    """

    of: Array
    number: Array
    codes: Array
    words: Array
    sizes: Array


def giveaways(found: Statistics) -> list[Found]:
    """Find words beside the texts that nearly all their rows share a class with, far beyond its share of the rows."""
    counts = _counts(found)
    if len(found.classes) < 2 or not len(counts.words):
        return []
    shares = np.bincount(counts.codes[counts.codes >= 0], minlength=len(found.classes))
    given = _pure(counts, shares)
    marks = _marks(counts, shares, given)
    if not marks:
        return []
    chosen = [word for mark in marks for word in mark]
    coverage = [given[word][1] / shares[given[word][0]] for word in chosen]
    best = int(np.argmax(coverage))
    rows = found.sample.rows[np.unique(counts.of[np.isin(counts.number, chosen)])]
    names = [found.sample.names.get(int(counts.words[word]), "") for word in chosen[:SHOWN]]
    number = len(chosen)
    each, it, words = verb(number, "it", "each"), verb(number, "it", "them"), verb(number, "word", "words")
    share, label = percent(round(1000 * coverage[best]), 1000), found.classes[given[chosen[best]][0]]
    text = (
        f"{plural(number, 'word')} {verb(number, 'gives', 'give')} the class away: {_PURITY:.0%} or more of the rows "
        f"with {each} have one class; the strongest is in {share} of the rows of {label}. A model learns the {words} "
        f"and not the text: remove {it} from the texts if {verb(number, 'it is', 'they are')} not there when the model "
        "is used"
    )
    severity = Severity.ERROR if coverage[best] >= _SERIOUS else Severity.WARNING
    return [finding("giveaways", severity, text, found, rows, count=number, examples=[n for n in names if n])]


def _counts(found: Statistics) -> _Counts:
    """Count the words of at least _SUPPORT rows."""
    sample = found.sample
    words, number, sizes = np.unique(sample.words, return_inverse=True, return_counts=True)
    frequent = sizes >= _SUPPORT
    renumbered = np.where(frequent, np.cumsum(frequent) - 1, -1).astype(np.int32)[number]
    kept = renumbered >= 0
    return _Counts(
        sample.of[kept], renumbered[kept], found.codes[sample.rows], words[frequent], sizes[frequent].astype(np.int32)
    )


def _pure(counts: _Counts, shares: Array) -> dict[int, tuple[int, int]]:
    """Return the words of one class: the class, and the rows of it with the word.

    The probability of so pure a word by chance, with the number of words looked at (Bonferroni), must be tiny.
    """
    classes, labels = len(shares), counts.codes[counts.of]
    labelled = labels >= 0
    # Codes of pairs (word, class), since a table of all words and 1,000 classes would be large.
    pairs = counts.number[labelled].astype(np.int64) * classes + labels[labelled]
    pairs, rows = np.unique(pairs, return_counts=True)
    word, label = np.divmod(pairs, classes)
    share = shares / max(shares.sum(), 1)
    chance = counts.sizes[word] * np.log(np.maximum(share[label], 1e-12)) + math.log(len(counts.words))
    pure = (rows >= _PURITY * counts.sizes[word]) & (chance < math.log(_CHANCE)) & (share[label] < 0.9)
    order = np.flatnonzero(pure)[np.argsort(-rows[pure], kind="stable")][:_LOOKED_AT]
    return {int(word[n]): (int(label[n]), int(rows[n])) for n in order}


def _marks(counts: _Counts, shares: Array, given: dict[int, tuple[int, int]]) -> list[list[int]]:
    """Return the words of each mark, the most frequent mark first."""
    order, ends = np.argsort(counts.number, kind="stable"), np.cumsum(counts.sizes)
    rows = {word: counts.of[order[ends[word] - counts.sizes[word] : ends[word]]] for word in given}
    groups = _same_rows(rows)
    alone = np.zeros(len(counts.codes), np.int32)
    for group in groups:
        alone[rows[group[0]]] += 1
    found = []
    for group in groups:
        code, size = given[group[0]]
        mine = rows[group[0]]
        if (alone[mine] == 1).mean() < _ALONE:
            continue
        if size >= _MOST * shares[code] or _is_independent(counts, mine, np.flatnonzero(counts.codes == code)):
            found.append(group)
    return found


def _same_rows(rows: dict[int, Array]) -> list[list[int]]:
    """Group words that are in nearly the same rows."""
    groups: list[list[int]] = []
    for word, mine in rows.items():
        for group in groups:
            first = rows[group[0]]
            if np.intersect1d(first, mine, assume_unique=True).size >= _SAME * max(len(first), len(mine)):
                group.append(word)
                break
        else:
            groups.append([word])
    return groups


def _is_independent(counts: _Counts, mine: Array, others: Array) -> bool:
    """Return True if no word is more frequent in `mine` than in all rows of the class, but those of a fixed phrase."""
    from scipy.stats import binom  # type: ignore[import-untyped]

    inside, within = np.zeros((2, len(counts.codes)), bool)
    inside[mine], within[others] = True, True
    size = len(counts.words)
    here = np.bincount(counts.number[inside[counts.of]], minlength=size)
    there = np.bincount(counts.number[within[counts.of]], minlength=size)
    # Longer texts have more of every word.
    longer = (here.sum() / max(len(mine), 1)) / (there.sum() / max(len(others), 1))
    rate = np.minimum(there / max(len(others), 1) * max(longer, 1.0), 1.0)
    companions = here < _SAME * len(mine)
    chance = binom.sf(here[companions] - 1, len(mine), rate[companions])
    return not bool((chance * size < _COMPANION).any())
