"""Exact match, token F1 and ROUGE-L of single answers."""

# ruff: noqa: RUF001 - Chinese punctuation

from __future__ import annotations

import random

import pytest

from raypath.components.evaluation.generation.overlap import common_subsequence, exact_match, rouge_l, token_f1
from raypath.components.evaluation.generation.texts import answer_tokens, is_unspaced, normalize, words


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Cat, an animal!", "cat animal"),
        ("  U.S.A. ", "usa"),
        ("Theatre", "theatre"),
        ("“北京”，中国。", "北京中国"),
        ("", ""),
    ],
)
def test_normalization_is_that_of_squad(text: str, normalized: str) -> None:
    assert normalize(text) == normalized


def test_chinese_and_japanese_count_by_character() -> None:
    assert answer_tokens("I live in 北京市.") == ["i", "live", "in", "北", "京", "市"]
    assert words("东京 Tower-2号") == ["东", "京", "tower", "2", "号"]
    assert is_unspaced(["我喜欢 tea", "很好"])
    assert not is_unspaced(["I like 茶"])


@pytest.mark.parametrize(
    ("reference", "prediction", "exact", "f1"),
    [
        ("The Beatles", "beatles", 1.0, 1.0),
        ("in the year 1999", "1999", 0.0, 0.5),
        ("a b c", "c b", 0.0, 1.0),  # "a" is an article
        ("x x y", "x y y", 0.0, 2 / 3),
        ("北京大学", "北京", 0.0, 2 / 3),
        ("yes", "", 0.0, 0.0),
        ("", "", 1.0, 1.0),
    ],
)
def test_exact_match_and_token_f1(reference: str, prediction: str, exact: float, f1: float) -> None:
    assert exact_match(reference, prediction) == exact
    assert token_f1(reference, prediction) == pytest.approx(f1)


def test_rouge_l_by_hand() -> None:
    # Lin (2004): police killed the gunman; police kill the gunman shares 3 of 4 words in order.
    assert rouge_l("police killed the gunman", "police kill the gunman") == pytest.approx(0.75)
    assert rouge_l("police killed the gunman", "the gunman kill police") == pytest.approx(0.5)
    assert rouge_l("Police, killed!", "police killed") == 1.0
    assert rouge_l("one", "") == 0.0


def test_the_longest_common_subsequence_is_that_of_the_table() -> None:
    rng = random.Random(0)
    for _ in range(200):
        first, second = ([rng.choice("abcd") for _ in range(rng.randrange(90))] for _ in range(2))
        assert common_subsequence(first, second) == _table(first, second)


def _table(first: list[str], second: list[str]) -> int:
    row = [0] * (len(second) + 1)
    for a in first:
        before = 0
        for n, b in enumerate(second, 1):
            before, row[n] = row[n], before + 1 if a == b else max(row[n], row[n - 1])
    return row[-1]
