"""Lengths, languages, personal data and outliers at their bounds: severity, the whole text, rows and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components.inspection.findings import texts
from raypath.components.inspection.report import Severity
from raypath.components.inspection.statistics import Statistics
from raypath.components.inspection.texts.languages import NAMES
from raypath.components.models.conversion.packaged import MULTILINGUAL
from tests.components.inspection.made_up import kinds_of, only, statistics

ERROR, WARNING, NOTE = Severity


@pytest.mark.parametrize(
    ("lengths", "most", "limit", "severity", "text", "settings"),
    [
        ([300] * 5 + [20] * 95, 256, 512, NOTE,
         "5 texts (5.0%) of more than 256 tokens are truncated: what comes after is not seen",
         {"preprocess.max_length": 320}),
        ([300] * 6 + [20] * 94, 256, None, WARNING,
         "6 texts (6.0%) of more than 256 tokens are truncated: what comes after is not seen",
         {"preprocess.max_length": 320}),
        ([300] + [20] * 99, 256, 512, NOTE,
         "1 text (1.0%) of more than 256 tokens is truncated: what comes after is not seen", {}),
        ([900] * 50 + [20] * 50, 256, 512, WARNING,
         "50 texts (50%) of more than 256 tokens are truncated: what comes after is not seen",
         {"preprocess.max_length": 512}),
        ([900] * 50 + [20] * 50, 512, 512, WARNING, "50 texts (50%) of more than 512 tokens are truncated: "
         "what comes after is not seen; the base takes no more than 512 tokens", {}),
        ([20] * 98 + [17] * 2, 16, 512, WARNING,
         "100 texts (100%) of more than 16 tokens are truncated: what comes after is not seen",
         {"preprocess.max_length": 64}),
    ],
)  # fmt: skip
def test_truncation(
    tmp_path: Path,
    lengths: list[int],
    most: int,
    limit: int | None,
    severity: Severity,
    text: str,
    settings: dict[str, Any],
) -> None:
    found = statistics(tmp_path, 100, lengths=lengths)
    described = texts.lengths_of(found, most, tokens=True)
    assert described is not None
    rows = [n for n, length in enumerate(lengths) if length > most]
    assert described.truncated == len(rows)
    made = texts.truncation(found, described, limit)
    assert only(made) == (severity, len(rows), text, settings, rows)
    assert kinds_of(made) == ["truncated"]
    words = texts.lengths_of(found, most, tokens=False)
    assert words is not None
    [(in_words, _)] = texts.truncation(found, words, limit)
    assert in_words.text == text.replace(f"{most} tokens ", f"{most} words, and so of more tokens, ")
    assert texts.truncation(statistics(tmp_path, 100, lengths=[most] * 100), described, limit) == []


def test_lengths(tmp_path: Path) -> None:
    found = texts.lengths_of(statistics(tmp_path, 102, lengths=[*range(101), 500], present={101: False}), 50, False)
    assert found is not None
    assert (found.unit, found.max_length, found.truncated) == ("words", 50, 50)
    assert found.quantiles == {"min": 0, "5%": 5, "median": 50, "95%": 95, "99%": 99, "max": 100}
    assert found.edges == list(range(0, 121, 5)), "24 bars up to the 99th percentile"
    assert found.histogram == [5] * 20 + [1, 0, 0, 0]
    long = texts.lengths_of(statistics(tmp_path, 200, lengths=[10] * 199 + [5_000]), 256, True)
    assert long is not None
    assert (long.unit, long.edges) == ("tokens", list(range(25)))
    assert (long.histogram[10], long.histogram[23]) == (199, 1), "the last bar has all longer ones"
    assert texts.lengths_of(statistics(tmp_path, 2, present=[False, False]), 256, True) is None


def _languages(folder: Path, rows: int, counts: dict[str, int]) -> Statistics:
    """Rows in English, of which the first ones are in other languages."""
    codes = [NAMES.index(name) for name, number in counts.items() for _ in range(number)]
    return statistics(folder, rows, languages=dict(enumerate(codes)))


@pytest.mark.parametrize(
    ("rows", "counts", "named"),
    [
        (100, {"de": 5}, ""),
        (100, {"de": 6}, "6 texts (6.0%) {} (de)"),
        (100, {"de": 6, "fr": 7}, "13 texts (13%) {} (fr, de)"),
        (700, {"de": 7}, ""),
        (700, {"de": 8}, "8 texts (1.1%) {} (de)"),
        (700, {"unknown": 100, "de": 7}, "7 texts (1.0%) {} (de)"),
        (100, dict.fromkeys(["de", "fr", "es", "it", "pt", "nl"], 6), "36 texts (36%) {} (de, fr, es, it, pt)"),
    ],
)
def test_languages(tmp_path: Path, rows: int, counts: dict[str, int], named: str) -> None:
    found = _languages(tmp_path, rows, counts)
    made = texts.languages(found)
    if named:
        foreign = sum(number for name, number in counts.items() if name != "unknown")
        rest = " than most (en); a base for one language reads them badly: set finetune.base to a multilingual one, "
        text = named.format("seem to be in another language") + f"{rest}such as {MULTILINGUAL}"
        first = counts.get("unknown", 0)
        assert only(made) == (NOTE, foreign, text, {}, list(range(first, first + foreign)))
        assert kinds_of(made) == ["languages"]
    else:
        assert made == []
    ordered = sorted((counts | {"en": rows - sum(counts.values())}).items(), key=lambda each: -each[1])
    assert list(texts.language_counts(found).items()) == ordered


def test_languages_of_no_rows(tmp_path: Path) -> None:
    absent = statistics(tmp_path, 2, present=[False, False])
    assert (texts.languages(absent), texts.language_counts(absent)) == ([], {})


@pytest.mark.parametrize(
    ("bits", "text", "rows"),
    [
        ({0: 1}, "1 row seems to have personal data: 1 with an e-mail address; remove or mask it before training", [0]),
        ({0: 3, 4: 2, 5: 4}, "2 rows seem to have personal data: 1 with an e-mail address, 1 with an IP address; "
         "remove or mask it before training", [0, 5]),
        ({0: 120}, "1 row seems to have personal data: 1 with a card number, 1 with a bank account (IBAN), 1 with a "
         "Chinese resident ID number, 1 with a phone number; remove or mask it before training", [0]),
        (dict.fromkeys(range(1_200), 1), "1,200 rows seem to have personal data: 1,200 with an e-mail address; "
         "remove or mask it before training", list(range(1_200))),
    ],
)  # fmt: skip
def test_personal_data(tmp_path: Path, bits: dict[int, int], text: str, rows: list[int]) -> None:
    found = statistics(tmp_path, 1_500, personal=bits)
    made = texts.personal_data(found)
    assert only(made) == (WARNING, len(rows), text, {}, rows)
    assert kinds_of(made) == ["personal_data"]
    only_urls = statistics(tmp_path, 10, personal={3: 2})
    assert texts.personal_data(only_urls) == []
    assert texts.personal_counts(only_urls) == {"url": 1}


def test_outliers(tmp_path: Path) -> None:
    found = statistics(tmp_path, 40, shape_0={3: 9.0}, present={7: False})
    text = "1 text is unlike all others (1 by length): see whether it belongs to the data"
    assert only(texts.outliers(found)) == (NOTE, 1, text, {}, [3])
    found = statistics(tmp_path, 40, shape_0={3: 9.0}, shape_2={8: 1.0, 9: 2.0}, present={7: False})
    text = "3 texts are unlike all others (2 by share of digits, 1 by length): see whether they belong to the data"
    made = texts.outliers(found)
    assert only(made) == (NOTE, 3, text, {}, [9, 3, 8]), "the farthest first"
    assert kinds_of(made) == ["outliers"]
    assert texts.outliers(statistics(tmp_path, 40)) == []
