"""Findings on planted faults: the right rows, the right severity, and the setting that mends them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raypath.components.inspection.build import build_report
from raypath.components.inspection.params import InspectParams
from raypath.components.inspection.report import Finding, InspectionReport, Severity
from raypath.components.inspection.rows import Part
from tests.components.inspection.planted import part, texts


def _report(folder: Path, *parts: Part, **settings: object) -> InspectionReport:
    return build_report("rows.csv", parts, InspectParams().override(settings), folder)[0]


def _by_kind(report: InspectionReport) -> dict[str, Finding]:
    assert not [line for line in report.skipped if "Error" in line], report.skipped
    return {each.kind: each for each in report.findings}


def _rows(finding: Finding) -> list[tuple[str, int]]:
    return [(place.source, place.row) for place in finding.rows]


def test_plain_rows_have_no_findings(tmp_path: Path) -> None:
    report = _report(tmp_path, part(*texts(600)))
    assert report.findings == []
    assert (report.rows, report.label_kind, next(iter(report.languages))) == (600, "class", "en")
    assert {each.label for each in report.classes} == {"good", "bad"}
    assert sum(each.rows for each in report.classes) == 600


def test_equal_near_and_contradictory_rows(tmp_path: Path) -> None:
    rows, labels = texts(300)
    rows[100], labels[100] = rows[7], labels[7]
    rows[200], labels[200] = rows[8], "bad" if labels[8] == "good" else "good"
    rows[250] = rows[9].replace(" ", "  ").upper() + "!!"
    found = _by_kind(_report(tmp_path, part(rows, labels)))
    assert _rows(found["duplicates"]) == [("rows.csv", 101), ("rows.csv", 201)]
    assert found["duplicates"].settings == {"split.duplicates": "drop"}
    assert _rows(found["near_duplicates"]) == [("rows.csv", 251)]
    assert _rows(found["contradictions"]) == [("rows.csv", 9), ("rows.csv", 201)]
    assert set(found) == {"duplicates", "near_duplicates", "contradictions"}


def test_leaks_name_the_row_of_train_and_are_errors(tmp_path: Path) -> None:
    train, test = texts(200, seed=1), texts(60, seed=2)
    test[0][5] = train[0][3]
    test[0][6] = train[0][4] + " Indeed"
    found = _by_kind(_report(tmp_path, part(*train, "train", "train"), part(*test, "test", "test")))
    assert _rows(found["leaks"]) == [("train", 4)]
    assert _rows(found["near_leaks"]) == [("train", 5)]
    assert {found[kind].severity for kind in ("leaks", "near_leaks")} == {Severity.ERROR}


def test_errors_come_first_then_warnings_then_notes(tmp_path: Path) -> None:
    train, test = texts(400, seed=1), texts(60, seed=2)
    order = np.argsort(train[1], kind="stable")
    rows, labels = [train[0][n] for n in order], [train[1][n] for n in order]
    rows[100] = rows[7]
    test[0][5] = rows[3]
    report = _report(tmp_path, part(rows, labels, "train", "train"), part(*test, "test", "test"))
    found = [(each.severity, each.kind) for each in report.findings]
    assert {"leaks", "duplicates", "sorted_labels"} <= {kind for _, kind in found}
    assert [severity for severity, _ in found] == sorted((s for s, _ in found), key=list(Severity).index)


def test_a_split_column_gives_the_splits(tmp_path: Path) -> None:
    rows, labels = texts(100)
    rows[99] = rows[0]
    split = pa.array(["train"] * 80 + [None] * 10 + ["test"] * 10)
    report = _report(tmp_path, Part("a.csv", [pa.table({"text": rows, "label": labels, "split": split})]))
    assert report.splits == {"train": 80, "test": 10}
    assert _rows(_by_kind(report)["leaks"]) == [("a.csv", 1)]


def test_sorted_rows(tmp_path: Path) -> None:
    rows, labels = texts(400)
    order = np.argsort(labels, kind="stable")
    ordered = part([rows[n] for n in order], [labels[n] for n in order])
    assert _by_kind(_report(tmp_path / "a", ordered))["sorted_labels"].severity is Severity.NOTE
    assert "sorted_labels" not in _by_kind(_report(tmp_path / "b", part(rows, labels)))


def test_rare_classes_come_with_their_interval_and_a_setting(tmp_path: Path) -> None:
    rows, labels = texts(2_000)
    labels[3] = labels[9] = labels[50] = "ugly"
    found = _by_kind(_report(tmp_path, part(rows, labels)))["rare_classes"]
    assert (found.count, found.settings) == (1, {"split.min_rows": 100})
    assert _rows(found) == [("rows.csv", 4), ("rows.csv", 10), ("rows.csv", 51)]
    assert "98 points" in found.text
    labels[9] = labels[50] = "bad"
    assert _by_kind(_report(tmp_path, part(rows, labels)))["rare_classes"].severity is Severity.ERROR


def test_imbalance(tmp_path: Path) -> None:
    rows, labels = texts(2_000)
    labels = ["rare" if n % 80 == 0 else "common" for n in range(len(labels))]
    found = _by_kind(_report(tmp_path, part(rows, labels)))
    assert found["imbalance"].settings == {"finetune.objective.class_weights": "balanced"}


def test_outliers_by_length_and_characters(tmp_path: Path) -> None:
    rows, labels = texts(400)
    rows[10] = "0x" + "3f9a8b7c" * 40
    rows[20] = rows[20] + " more words" * 3_000
    rows[30] = "?!#$ %&/( )=?* ..."
    found = _by_kind(_report(tmp_path, part(rows, labels)))["outliers"]
    assert sorted(_rows(found)) == [("rows.csv", 11), ("rows.csv", 21), ("rows.csv", 31)]


def test_rows_that_are_dropped_count_but_have_no_findings(tmp_path: Path) -> None:
    rows, labels = texts(300)
    table = pa.table({"text": [*rows, None, None], "label": [*labels, None, None]})
    report = _report(tmp_path, Part("a.csv", [table]))
    assert (report.rows, report.findings) == (302, [])
    assert sum(report.languages.values()) == 300


@pytest.mark.parametrize("label", [None, [["a"], [], ["a", "b"]] * 20, [[0.5], [1.5], [2.5]] * 20])
def test_rows_without_labels_with_sets_and_with_numbers(tmp_path: Path, label: object) -> None:
    rows, _ = texts(60)
    rows[1] = rows[0]
    table = pa.table({"text": rows} | ({"label": label} if label else {}))
    report = _report(tmp_path, Part("a.csv", [table]))
    found = _by_kind(report)
    assert _rows(found["duplicates"]) == [("a.csv", 2)]
    kind = "none" if label is None else ("set" if label[0] == ["a"] else "number")  # type: ignore[index]
    assert report.label_kind == kind
    assert ("contradictions" in found) is (kind == "set")


def test_no_rows(tmp_path: Path) -> None:
    report = _report(tmp_path, Part("a.csv", []))
    assert (report.rows, report.findings, report.lengths) == (0, [], None)


def test_the_report_does_not_depend_on_the_batches(tmp_path: Path) -> None:
    rows, labels = texts(700)
    rows[600] = rows[3]
    small = _report(tmp_path / "a", part(rows, labels, size=97))
    assert small == _report(tmp_path / "b", part(rows, labels, size=700))
