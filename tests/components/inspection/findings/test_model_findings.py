"""Findings by features: the rows that are judged, the bounds of what is listed, and the whole texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.arrays import Array
from raypath.components.core.labels import LabelKind
from raypath.components.inspection.findings.model import chosen_rows, far_texts, model_findings
from raypath.components.inspection.report import Severity
from tests.components.inspection.made_up import only, statistics

WRONG = (
    "{} {} a wrong label: a model of the other rows, which agrees with {} of the labels, gives another class at least "
    "90%; look at {}, and correct the file"
)


def _given(rows: int, flipped: list[int]) -> tuple[Array, Array]:
    """Labels in turn, some of them flipped, and features that tell the true ones."""
    true = np.arange(rows) % 2
    given = true.copy()
    given[flipped] = 1 - given[flipped]
    noise = np.random.default_rng(0).normal(size=(rows, 2))
    return given, np.stack([8.0 * true - 4, *noise.T / 8], axis=1).astype(np.float32)


MANY = "them, the most certain first"


@pytest.mark.parametrize(
    ("present", "flipped", "listed", "severity", "text"),
    [
        (80, 1, 1, Severity.WARNING, WRONG.format("1 row", "probably has", "99%", "it")),
        (80, 2, 2, Severity.WARNING, WRONG.format("2 rows", "probably have", "98%", MANY)),
        (81, 1, 1, Severity.WARNING, WRONG.format("1 row of 80 drawn at random", "probably has", "99%", "it")),
        (80, 8, 7, Severity.WARNING, WRONG.format("7 rows", "probably have", "90%", MANY)),
        (80, 10, 1, Severity.NOTE, WRONG.format("1 row", "may have", "88%", "it")),
    ],
)
def test_label_errors(tmp_path: Path, present: int, flipped: int, listed: int, severity: Severity, text: str) -> None:
    given, features = _given(80, list(range(flipped)))
    found = statistics(tmp_path, present, codes=[*given, *[0] * (present - 80)])
    skipped: list[str] = []
    made = model_findings(found, np.arange(80), features, 0, skipped)
    assert [each.kind for each, _ in made] == ["label_errors"]
    assert (made[0][0].severity, made[0][0].text, made[0][0].count) == (severity, text, listed)
    assert set(made[0][1].tolist()) <= set(range(flipped))
    assert skipped == []


@pytest.mark.parametrize("kind", list(LabelKind))
def test_label_errors_are_searched_in_single_classes(tmp_path: Path, kind: LabelKind) -> None:
    given, features = _given(80, [7])
    found = statistics(tmp_path, 80, kind, codes=given, sets=[("a",), ("b",)])
    single = kind in (LabelKind.CLASS, LabelKind.STRING, LabelKind.INT, LabelKind.BOOL)
    assert len(model_findings(found, np.arange(80), features, 0, [])) == single


@pytest.mark.parametrize(("second", "listed"), [(9, 0), (10, 1)])
def test_small_classes_are_not_judged(tmp_path: Path, second: int, listed: int) -> None:
    """The class 1 has so many rows, of which the first is one of class 0."""
    given = np.array([1] + [0] * 50 + [1] * (second - 1))
    features = np.where(np.arange(len(given)) > 50, 4.0, -4.0)[:, None].astype(np.float32)
    found = statistics(tmp_path, len(given), codes=given)
    skipped: list[str] = []
    made = model_findings(found, np.arange(len(given)), features, 0, skipped)
    assert (len(made), skipped) == (listed, [])


def test_a_weak_model_says_why_nothing_is_listed(tmp_path: Path) -> None:
    given, features = _given(80, list(range(0, 80, 4)))
    skipped: list[str] = []
    assert model_findings(statistics(tmp_path, 80, codes=given), np.arange(80), features, 0, skipped) == []
    assert skipped == [
        "label errors: a model on features of the base agrees with 69% of the labels, "
        "and its objections are trusted from 80% on"
    ]


def test_the_rows_of_features(tmp_path: Path) -> None:
    found = statistics(tmp_path, 50, texts={9: 3, 20: 1}, present={5: False})
    rows = chosen_rows(found, 47, 0)
    assert rows.tolist() == [n for n in range(50) if n not in (5, 9, 20)], "the first of each text"
    few = chosen_rows(found, 46, 0)
    assert len(set(few.tolist())) == 46
    assert set(few.tolist()) < set(rows.tolist())
    assert few.tolist() == sorted(few.tolist())
    assert few.tolist() == chosen_rows(found, 46, 0).tolist() != chosen_rows(found, 46, 1).tolist()


@pytest.mark.parametrize(
    ("far", "text"),
    [
        ({}, ""),
        ({50: 9.0}, "1 text has no similar text among the others: see whether it belongs to the data"),
        ({50: 9.0, 3: 30.0}, "2 texts have no similar text among the others: see whether they belong to the data"),
    ],
)
def test_far_texts(tmp_path: Path, far: dict[int, float], text: str) -> None:
    features = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32) / 10
    for row, distance in far.items():
        features[row] = [distance * (1 if row % 2 else -1), 0, 0, 0]
    found = statistics(tmp_path, 200)
    made = far_texts(found, np.arange(100) + 100, features)
    assert [each.kind for each, _ in made] == ["far_texts"] * bool(far)
    if far:
        wanted: Any = (Severity.NOTE, len(far), text, {}, sorted((row + 100 for row in far), reverse=50 not in far))
        assert only(made) == wanted
    assert far_texts(found, np.arange(99), features[:99]) == [], "too few to tell"


@pytest.mark.parametrize(("distance", "far"), [(0.099, 0), (0.101, 1)])
def test_how_far_a_text_is(tmp_path: Path, distance: float, far: int) -> None:
    """All others are equal, so that the least deviation, 0.02, counts: five times as much is far."""
    features = np.zeros((100, 2), np.float32)
    features[7, 0] = distance
    assert len(far_texts(statistics(tmp_path, 100), np.arange(100), features)) == far


@pytest.mark.parametrize(("alike", "far"), [(10, 1), (11, 0)])
def test_ten_neighbours_count(tmp_path: Path, alike: int, far: int) -> None:
    features = np.zeros((100, 2), np.float32)
    features[:alike, 0] = 10
    made = far_texts(statistics(tmp_path, 100), np.arange(100), features)
    assert [each.count for each, _ in made] == [alike] * far
