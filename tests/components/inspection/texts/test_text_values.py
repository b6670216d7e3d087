"""Values of single texts: shapes, words, languages at their bounds, and personal data by pattern."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pyarrow as pa
import pytest

from raypath.components.inspection.minhash import BAND_ROWS, BANDS, run_starts, signatures
from raypath.components.inspection.texts import words as words_module
from raypath.components.inspection.texts.languages import NAMES, language_codes
from raypath.components.inspection.texts.personal_data import KINDS, find, personal_data
from raypath.components.inspection.texts.shapes import NAMES as SHAPES
from raypath.components.inspection.texts.shapes import outliers, shapes
from raypath.components.inspection.texts.words import split_words, text_hashes


def test_names_of_values() -> None:
    assert (
        *("length", "share of letters", "share of digits", "share of capitals", "length of words", "repetition"),
    ) == SHAPES
    assert KINDS == ("email", "url", "ip", "card", "iban", "resident_id", "phone")
    assert NAMES == [
        "en",
        "de",
        "fr",
        "es",
        "it",
        "pt",
        "nl",
        "sv",
        "da",
        "no",
        "fi",
        "pl",
        "cs",
        "ro",
        "hu",
        "tr",
        "id",
        "vi",
        "ru",
        "uk",
        "bg",
        "sr",
        "ar",
        "fa",
        "ja",
        "ko",
        "zh",
        "th",
        "el",
        "he",
        "script:Devanagari",
        "ta",
        "bn",
        "unknown",
    ]


@pytest.mark.parametrize(
    ("text", "words", "distinct", "wanted"),
    [
        ("", 0, 0, (0.0, 0.0, 0.0, 0.0, math.log1p(1.0), 0.0)),
        ("Ab 12!", 2, 2, (math.log1p(6), 0.4, 0.4, 0.5, math.log1p(5 / 2), 0.0)),
        ("aa aa", 2, 1, (math.log1p(5), 1.0, 0.0, 0.0, math.log1p(4 / 2), 0.5)),
        ("é\t9\n", 2, 2, (math.log1p(5), 2 / 3, 1 / 3, 0.0, math.log1p(3 / 3), 0.0)),
        ("ZA@[", 1, 1, (math.log1p(4), 0.5, 0.0, 1.0, math.log1p(4), 0.0)),
        ("za`{/:", 1, 1, (math.log1p(6), 2 / 6, 0.0, 0.0, math.log1p(6), 0.0)),
        (" \x0b\x0c\r", 0, 0, (math.log1p(4), 0.0, 0.0, 0.0, math.log1p(1 / 5), 0.0)),
    ],
)
def test_shapes(text: str, words: int, distinct: int, wanted: tuple[float, ...]) -> None:
    column = pa.array(["other text", text, "x"])
    found = shapes(column, np.array([2, words, 1]), np.array([2, distinct, 1]))
    assert [float(each[1]) for each in found] == pytest.approx(wanted)
    sliced = shapes(column.slice(1, 1), np.array([words]), np.array([distinct]))
    assert [float(each[0]) for each in sliced] == pytest.approx(wanted)


@pytest.mark.parametrize(("column", "least"), [(0, 0.35), (1, 0.06), (2, 0.04), (3, 0.15), (4, 0.15), (5, 0.08)])
def test_rows_that_are_far_from_the_others(column: int, least: float) -> None:
    """Where all values are alike, a row is far beyond seven times the least deviation of the column."""
    for distance, far in ((7.1 * least, True), (6.9 * least, False)):
        columns = [np.full(30, 1.0) for _ in SHAPES]
        columns[column][4] += distance
        rows, why = outliers(columns)
        assert (rows.tolist(), why.tolist()) == (([4], [column]) if far else ([], []))
    spread = np.tile([0.0, 10.0, 20.0], 11)
    assert outliers([spread * least, *[np.zeros(33)] * 5])[0].tolist() == [], "the deviation of the rows counts"


def test_the_farthest_row_comes_first_and_few_rows_have_none() -> None:
    columns = [np.zeros(30) for _ in SHAPES]
    columns[0][3], columns[2][3], columns[5][9] = 5.0, 1.0, -9.0
    rows, why = outliers(columns)
    assert (rows.tolist(), why.tolist()) == ([9, 3], [5, 2])
    assert outliers(each[:29] for each in columns)[0].tolist() == []


def test_words() -> None:
    words = split_words(pa.array(["A a-b", "", "!", "日本 b", "ไทย"]))
    assert [words.vocabulary[code] for code in words.codes] == ["a", "a", "b", "日", "本", "b", "ไ", "ท", "ย"]
    assert words.counts.tolist() == [3, 0, 0, 3, 3]
    assert words.rows.tolist() == [0, 0, 0, 3, 3, 3, 4, 4, 4]
    digest = int.from_bytes(hashlib.blake2b("日".encode(), digest_size=8).digest(), "little")
    assert words.hashes[words.vocabulary.index("日")] == digest
    assert int(text_hashes(pa.array(["日"]))[0]) == digest
    empty = split_words(pa.array([], pa.string()))
    assert (empty.starts.tolist(), empty.codes.tolist()) == ([0], [])


def test_the_hashes_of_words_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words_module, "_cache", {})
    monkeypatch.setattr(words_module, "_CACHE_WORDS", 2)
    for text, size in (("a b", 2), ("c", 3), ("d", 1)):
        split_words(pa.array([text]))
        assert len(words_module._cache) == size, text


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the cat", "unknown"),
        ("the cat and dog", "en"),
        ("the cat and der Hund die", "unknown"),
        ("the cat and der Hund die das", "de"),
        ("日本 abcdef", "unknown"),
        ("日本 abcde", "zh"),
        ("日本の", "ja"),
        ("नमस्ते दुनिया", "script:Devanagari"),
        ("தமிழ்", "ta"),
        ("বাংলা", "bn"),
        ("123 !!!", "unknown"),
        ("", "unknown"),
    ],
)
def test_languages_at_their_bounds(text: str, language: str) -> None:
    texts = pa.array(["", text])
    assert NAMES[language_codes(texts, split_words(texts))[1]] == language


PERSONAL = {
    "a@b.c": set(), "a@b.co": {"email"}, "@b.co": set(),
    "www.abcd": {"url"}, "www.abc": set(), "http://abcd": {"url"}, "https://a": set(),
    "0.0.0.0": set(), "1.2.3.4": {"ip"}, "256.1.1.1": set(),
    "2001:db8:0:0:0:0:0:1": {"ip"}, "0:0:0:0:0:0:0:0": set(),
    "5500005555555559": {"card"}, "5500 0055 5555 5559": {"card"}, "3782 822463 10005": {"card"},
    "2222222222222222": set(), "1234567812345670": set(),
    "NO9386011117947": {"iban"}, "NO9386011117948": set(), "GB82 WEST 1234 5698 7654 32": {"iban"},
    "110105194912310021": set(), "11010519491231002X": {"resident_id"}, "11010519491231002x": {"resident_id"},
    "11010518991231002X": set(),
    "+1234567": {"phone"}, "+123456": set(), "0049301234567": {"phone"},
    "030 1234 567": {"phone"}, "030 123 456": set(), "13812345678": {"phone"}, "12812345678": set(),
    "1234567890": set(),
    "+1234567890123456": set(), "+123456789012345": {"phone"},
    "www.shop.de/030-1234-5678": {"url"},
}  # fmt: skip


@pytest.mark.parametrize("text", PERSONAL)
def test_personal_data_by_pattern(text: str) -> None:
    assert find(text) == PERSONAL[text]
    bits = int(personal_data(pa.array(["x", text]))[1])
    assert {kind for n, kind in enumerate(KINDS) if bits >> n & 1} == PERSONAL[text]


def test_signatures_do_not_depend_on_their_neighbours() -> None:
    assert (BANDS, BAND_ROWS) == (16, 4)
    together = signatures(split_words(pa.array(["one two three", "", "four", "one two three"])))
    alone = signatures(split_words(pa.array(["one two three"])))
    assert (together.shape, together.dtype) == ((4, 64), np.uint16)
    assert (together[0] == alone[0]).all()
    assert (together[3] == alone[0]).all()
    assert not together[1].any()
    assert (together[2] != alone[0]).mean() > 0.9
    assert (signatures(split_words(pa.array(["three two one"])))[0] == alone[0]).mean() < 0.9, "pairs have an order"
    assert signatures(split_words(pa.array(["", ""]))).tolist() == [[0] * 64] * 2


@pytest.mark.parametrize(
    ("values", "starts"), [([], []), ([5], [0]), ([1, 1, 2, 2, 2, 1], [0, 0, 2, 2, 2, 5]), ([3, 2, 1], [0, 1, 2])]
)
def test_runs_of_equal_values(values: list[int], starts: list[int]) -> None:
    assert run_starts(np.array(values, int)).tolist() == starts


def test_the_first_of_two_columns_that_are_equally_far() -> None:
    columns = [np.zeros(30) for _ in SHAPES]
    columns[3][4] = columns[4][4] = 5.0
    rows, why = outliers(columns)
    assert (rows.tolist(), why.tolist()) == ([4], [3])
