"""Words that give a label away, on made-up samples of words: the bounds of what counts, and the whole text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raypath.components.core.labels import LabelKind
from raypath.components.inspection.collection.sample import Sample
from raypath.components.inspection.findings import labels
from raypath.components.inspection.findings.giveaways import giveaways
from raypath.components.inspection.findings.make import Found
from raypath.components.inspection.report import Severity
from tests.components.inspection.made_up import only, statistics

Words = Callable[[int], set[int]]
TEXT = (
    "{} the class away: 99% or more of the rows with {} have one class; the strongest is in {} of the rows of {}. "
    "A model learns the {} and not the text: remove {} from the texts if {} not there when the model is used"
)


def _found(
    folder: Path, codes: list[int], words: Words, names: dict[int, str] | None = None, long: int = 0
) -> list[Found]:
    """Give each row the numbers of its words; those of natural texts are added, ten of 30 in each row.

    long: number of the first rows, which have 20 of them.
    """
    rng = np.random.default_rng(0)
    pairs = [(row, word) for row in range(len(codes)) for word in words(row)]
    sizes = [20 if row < long else 10 for row in range(len(codes))]
    pairs += [
        (row, int(word)) for row, size in enumerate(sizes) for word in rng.choice(np.arange(100, 130), size, False)
    ]
    of, hashes = (np.array(each) for each in zip(*pairs, strict=True))
    rows = np.arange(len(codes))
    sample = Sample(rows, np.zeros(len(rows)), of, hashes.astype(np.uint64), names=names or {})
    return giveaways(statistics(folder, len(codes), codes=codes, classes=["good", "bad", "none"], sample=sample))


HALVES = [0] * 200 + [1] * 200


@pytest.mark.parametrize(
    ("number", "severity", "share"),
    [
        (25, Severity.WARNING, "12%"),
        (39, Severity.WARNING, "20%"),
        (40, Severity.ERROR, "20%"),
        (200, Severity.ERROR, "100%"),
    ],
)
def test_a_mark(tmp_path: Path, number: int, severity: Severity, share: str) -> None:
    made = _found(tmp_path, HALVES, lambda row: {1} if row < number else set(), {1: "kx17", 101: "the"})
    text = TEXT.format("1 word gives", "it", share, "good", "word", "it", "it is")
    assert only(made) == (severity, 1, text, {}, list(range(number)))
    assert (made[0][0].kind, made[0][0].examples) == ("giveaways", ["kx17"])


def test_several_marks(tmp_path: Path) -> None:
    """Two words of the same rows, one of half of these, and one of the other class in all its rows."""

    def words(row: int) -> set[int]:
        return {3} if row >= 200 else {1, 2} if row < 60 else set()

    made = _found(tmp_path, HALVES, words, {1: "a", 3: "c"})
    text = TEXT.format("3 words give", "each", "100%", "bad", "words", "them", "they are")
    severity, count, found, _, rows = only(made)
    assert (severity, count, found) == (Severity.ERROR, 3, text)
    assert (rows, made[0][0].examples) == ([*range(60), *range(200, 400)], ["c", "a"]), "the most frequent first"


@pytest.mark.parametrize(
    "words",
    [
        lambda row: {1} if row < 24 else set(),
        lambda row: {1} if row < 100 or row in (200, 201) else set(),
        lambda row: {1} if row % 2 else set(),
        lambda row: {1 + row % 4, 1 + row // 4 % 4} if row < 200 else set(),
        lambda row: set(),
    ],
    ids=["too few rows", "two of another class", "of both classes", "of a vocabulary", "none"],
)
def test_words_that_are_no_mark(tmp_path: Path, words: Words) -> None:
    assert _found(tmp_path, HALVES, words) == []


def test_one_row_in_a_hundred_may_have_another_class(tmp_path: Path) -> None:
    assert len(_found(tmp_path, HALVES, lambda row: {1} if row < 99 or row == 200 else set())) == 1


def test_a_class_of_nearly_all_rows_is_no_coincidence(tmp_path: Path) -> None:
    def first(row: int) -> set[int]:
        return {1} if row < 150 else set()

    assert len(_found(tmp_path, [0] * 350 + [1] * 50, first)) == 1
    assert _found(tmp_path, [0] * 360 + [1] * 40, first) == [], "nine of ten rows have the class"


def test_rows_without_a_label_do_not_count(tmp_path: Path) -> None:
    assert len(_found(tmp_path, [-1] * 50 + HALVES, lambda row: {1} if 50 <= row < 90 else set())) == 1
    made = _found(tmp_path, [-1] * 50 + HALVES, lambda row: {1} if row < 90 else set())
    assert made == [], "40 of its 90 rows are of the class, and 50 of none"


def test_it_takes_two_classes_and_words(tmp_path: Path) -> None:
    empty = statistics(tmp_path, 50)
    assert giveaways(empty) == []
    sample = Sample(np.arange(50), np.zeros(50), np.arange(50), np.ones(50, np.uint64))
    assert giveaways(statistics(tmp_path, 50, classes=["a"], sample=sample)) == []


def test_sets_have_no_giveaways(tmp_path: Path) -> None:
    sample = Sample(np.arange(400), np.zeros(400), np.arange(200), np.ones(200, np.uint64))

    def kinds(kind: LabelKind) -> list[str]:
        codes = [0, 1] * 20 + [0] * 160 + [1, 0] * 20 + [1] * 160
        sets = [("a",), ("b",)]
        made = labels.labels(statistics(tmp_path, 400, kind, codes=codes, sets=sets, sample=sample), 1, 0.1)
        return [each.kind for each, _ in made]

    assert "giveaways" not in kinds(LabelKind.SET)


def test_a_mark_of_longer_texts_is_one_too(tmp_path: Path) -> None:
    """Longer texts have more of every word, so that no word comes with the mark."""
    assert len(_found(tmp_path, HALVES, lambda row: {1} if row < 60 else set(), long=60)) == 1
