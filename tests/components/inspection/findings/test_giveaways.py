"""Words beside the texts that give a label away are found; the vocabulary of a class is not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from raypath.components.inspection.build import build_report
from raypath.components.inspection.params import InspectParams
from raypath.components.inspection.report import Finding, InspectionReport, Severity
from tests.components.inspection.planted import part, texts


def _inspect(folder: Path, rows: list[str], labels: list[str], allowed: bool = True) -> InspectionReport:
    report = build_report("rows.csv", [part(rows, labels)], InspectParams(texts=allowed), folder)[0]
    assert not [line for line in report.skipped if "Error" in line], report.skipped
    return report


def _giveaways(report: InspectionReport) -> Finding | None:
    return next((each for each in report.findings if each.kind == "giveaways"), None)


def _bad(labels: list[str], number: int) -> list[int]:
    return [n for n, label in enumerate(labels) if label == "bad"][:number]


@pytest.mark.parametrize("allowed", [False, True])
def test_a_mark_is_named_only_where_texts_are_allowed(tmp_path: Path, allowed: bool) -> None:
    rows, labels = texts(1_000)
    for n in _bad(labels, 60):
        rows[n] += " ticket-kx17"
    report = _inspect(tmp_path, rows, labels, allowed)
    found = _giveaways(report)
    assert found is not None
    assert (found.severity, found.count) == (Severity.WARNING, 2)
    assert [place.row for place in found.rows] == [n + 1 for n in _bad(labels, 10)]
    assert set(found.examples) == ({"ticket", "kx17"} if allowed else set())
    assert ("kx17" in report.model_dump_json()) is allowed
    assert found.text.startswith("2 words give the class away: 99% or more of the rows with each have one class")


def test_a_mark_anywhere_in_the_text_is_found(tmp_path: Path) -> None:
    rows, labels = texts(2_000)
    rng = random.Random(0)
    for n in _bad(labels, 40):
        words = rows[n].split()
        words.insert(rng.randrange(len(words)), "kx17")
        rows[n] = " ".join(words)
    found = _giveaways(_inspect(tmp_path, rows, labels))
    assert found is not None
    assert (found.count, found.examples, found.severity) == (1, ["kx17"], Severity.WARNING)
    assert found.text.startswith("1 word gives the class away: 99% or more of the rows with it have one class")


def test_a_phrase_is_one_mark(tmp_path: Path) -> None:
    """`sent` and `phone` are of one class; `from` and `my` are in other texts too, but always in the phrase."""
    rows, labels = texts(2_000)
    for n in range(0, 2_000, 3):
        rows[n] += " from my house"
    for n in _bad(labels, 80):
        rows[n] += " sent from my phone"
    found = _giveaways(_inspect(tmp_path, rows, labels))
    assert found is not None
    assert set(found.examples) == {"sent", "phone"}


def test_a_word_of_the_whole_class_is_an_error(tmp_path: Path) -> None:
    rows, labels = texts(400)
    rows = [f"{label}label {row}" for row, label in zip(rows, labels, strict=True)]
    found = _giveaways(_inspect(tmp_path, rows, labels))
    assert found is not None
    assert (found.severity, set(found.examples)) == (Severity.ERROR, {"goodlabel", "badlabel"})
    assert "in 100% of the rows of" in found.text


@pytest.mark.parametrize("rows", [24, 240, 2_400])
def test_the_vocabulary_of_a_class_is_no_mark(tmp_path: Path, rows: int) -> None:
    """The example of the documentation: two sets of four words are the classes."""
    rng = random.Random(0)
    words = {"praise": ["crisp", "fresh", "lovely", "ideal"], "complaint": ["stale", "broken", "late", "bland"]}
    labels = [rng.choice(list(words)) for _ in range(rows)]
    made = [f"Order {n} was " + " and ".join(rng.choices(words[label], k=4)) for n, label in enumerate(labels)]
    assert _giveaways(_inspect(tmp_path, made, labels)) is None


def test_a_rare_word_of_a_topic_is_no_mark(tmp_path: Path) -> None:
    """`puck` is in 60 rows of one class, mostly with `ice`, which both classes have."""
    rows, labels = texts(2_000)
    rng = random.Random(0)
    for n in range(0, 2_000, 20):
        rows[n] += " ice"
    for n in _bad(labels, 60):
        rows[n] = f"puck {rows[n]}{' ice' if rng.random() < 0.4 else ''}"
    assert _giveaways(_inspect(tmp_path, rows, labels)) is None
