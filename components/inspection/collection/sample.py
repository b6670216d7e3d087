"""Random sample of rows with their distinct words, to look for words that give a label away.

A row is drawn by a hash of its place and the seed, so the sample does not depend on the division of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from raypath.components.core.arrays import Array

WORDS = 2_000_000
"""Most words of a sample."""


@dataclass(frozen=True)
class Sample:
    """Rows of the sample and their words. limit: a row is in the sample if its number, 0 to 1, is below.

    rows: int64 [R], sorted positions of the rows; draws: float32 [R], their numbers; of: int32 [W], the index of a row
    in `rows`; words: uint64 [W], hash of a word, each once a row; names: words by hash, if texts are allowed.
    """

    rows: Array
    draws: Array
    of: Array
    words: Array
    limit: float = 1.0
    names: dict[int, str] = field(default_factory=dict)

    def within(self, limit: float) -> Sample:
        """Return the sample of a lower limit."""
        kept = self.draws < limit
        number = np.cumsum(kept, dtype=np.int32) - 1
        of_kept = kept[self.of]
        words = self.words[of_kept]
        names = {word: name for word in np.unique(words).tolist() if (name := self.names.get(word))}
        return Sample(
            self.rows[kept], self.draws[kept], number[self.of[of_kept]], words, limit, names if self.names else {}
        )

    def moved(self, offset: int) -> Sample:
        """Return the sample with rows that begin at a position."""
        return Sample(self.rows + offset, self.draws, self.of, self.words, self.limit, self.names)


NOTHING = Sample(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.uint64))


def joined(samples: Iterable[Sample]) -> Sample:
    """Join samples of successive rows to one of at most WORDS words."""
    found = list(samples)
    limit = min((each.limit for each in found), default=1.0)
    while sum(int((each.draws[each.of] < limit).sum()) for each in found) > WORDS:
        limit /= 2
    found = [each if each.limit == limit else each.within(limit) for each in found] or [NOTHING]
    starts = np.cumsum([0, *(len(each.rows) for each in found)])[:-1]
    names: dict[int, str] = {}
    for each in found:
        names |= each.names
    return Sample(
        np.concatenate([each.rows for each in found]),
        np.concatenate([each.draws for each in found]),
        np.concatenate([each.of + np.int32(start) for each, start in zip(found, starts, strict=True)]),
        np.concatenate([each.words for each in found]),
        limit,
        names,
    )


def draws(seed: int, source: int, first: int, size: int) -> Array:
    """Numbers from 0 to 1 of the rows `first` to `first + size` of a source, float32 [N]: SplitMix64 of their place."""
    begin = (seed * 0xD1B54A32D192ED03 + source * 0x8CB92BA72F3D8DD7 + first) % 2**64
    mixed = (np.arange(size, dtype=np.uint64) + np.uint64(begin)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    numbers: Array = ((mixed >> np.uint64(40)) / np.float64(2**24)).astype(np.float32)
    return numbers
