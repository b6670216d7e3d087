"""The sample of rows does not depend on the division of the rows, and has a bounded number of words."""

from __future__ import annotations

import numpy as np
import pytest

from raypath.components.inspection.collection import sample
from raypath.components.inspection.collection.sample import Sample, draws, joined


def _samples(rows: int, step: int, words: int) -> list[Sample]:
    """Samples of successive rows, each with `words` words."""
    found = []
    for start in range(0, rows, step):
        size = min(step, rows - start)
        of = np.repeat(np.arange(size, dtype=np.int32), words)
        hashes = (np.arange(size * words) + start * words).astype(np.uint64)
        found.append(Sample(np.arange(start, start + size), draws(3, 0, start, size), of, hashes))
    return found


def test_numbers_are_uniform_and_differ_by_part_and_seed() -> None:
    numbers = draws(0, 0, 0, 100_000)
    assert abs(float(numbers.mean()) - 0.5) < 0.01
    assert 0 <= numbers.min() < numbers.max() < 1
    assert (draws(0, 0, 500, 100) == numbers[500:600]).all()
    for other in (draws(1, 0, 0, 100_000), draws(0, 1, 0, 100_000)):
        assert abs(float(np.corrcoef(numbers, other)[0, 1])) < 0.02


def test_it_is_bounded_and_does_not_depend_on_the_division(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample.WORDS == 2_000_000
    monkeypatch.setattr(sample, "WORDS", 100_000)
    words = 40
    rows = 3 * sample.WORDS // words
    one = joined(_samples(rows, rows, words))
    parts = _samples(rows, 317, words)
    two = joined([joined(parts[:9]), *parts[9:]])
    assert one.limit == two.limit == 0.25
    assert sample.WORDS / 3 < len(one.words) <= sample.WORDS
    assert (one.rows == two.rows).all()
    assert (one.of == two.of).all()
    assert (one.words == two.words).all()
    assert (one.words // words == one.rows[one.of]).all(), "words stay with their rows"


def test_names_are_kept_for_the_words_of_the_sample() -> None:
    names = {n: f"w{n}" for n in range(8)}
    of = np.repeat(np.arange(4, dtype=np.int32), 2)
    whole = Sample(np.arange(4), np.array([0.1, 0.9, 0.4, 0.6]), of, np.arange(8), names=names)
    half = whole.within(0.5)
    assert (half.rows.tolist(), half.of.tolist(), half.words.tolist()) == ([0, 2], [0, 0, 1, 1], [0, 1, 4, 5])
    assert half.names == {n: f"w{n}" for n in (0, 1, 4, 5)}
    assert len(joined([]).rows) == 0
