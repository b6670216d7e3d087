"""What `raypath inspect` prints: rows, columns, findings and files, each line in full."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from raypath.components.inspection.report import Column, Finding, InspectionReport, Place, Severity
from raypath.deploy.cli import inspect


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def _column(name: str, role: str = "", missing: int = 0) -> Column:
    return Column(name=name, kind="text", role=role, why="long", missing=missing, distinct=2)


def _report(**changes: Any) -> InspectionReport:
    none: dict[str, Any] = {"columns": [], "classes": [], "languages": {}, "personal_data": {}, "findings": []}
    fields = {"source": "a.csv", "rows": 1, "splits": {}, "label_kind": "class", "lengths": None, "skipped": [], **none}
    return InspectionReport(**{**fields, **changes})


def _finding(**changes: Any) -> Finding:
    return Finding(**{"kind": "leaks", "severity": Severity.ERROR, "text": "rows are in two splits", **changes})


def test_an_inspection(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    places = [Place(source="a.csv", row=row) for row in range(1, 8)]
    report = _report(
        rows=1234,
        splits={"train": 1000, "test": 234},
        columns=[_column("id"), _column("body", "text", 1000), *(_column(f"c{n}") for n in range(11))],
        findings=[
            _finding(count=7, rows=places, examples=list("abcd"), settings={"split.duplicates": "drop", "seed": "a b"}),
            _finding(count=5, rows=places[:5], severity=Severity.WARNING, text="[few]"),
            _finding(count=1, rows=places[:1], severity=Severity.WARNING, text="one"),
            _finding(count=1, severity=Severity.NOTE, kind="columns", text="the text", settings={"read.text": "body"}),
        ],
        skipped=["languages, too few rows"],
    )
    given: list[Any] = []

    def made(*args: Any, **options: Any) -> InspectionReport:
        given.append((args, options))
        return report

    monkeypatch.setattr(inspect, "inspect", made)
    args = Namespace(data="a.csv", settings=["seed=1"], out=tmp_path / "[b]", apply=Path("[b].yaml"))
    inspect.show_inspection(args)
    assert given == [(("a.csv", {"seed": "1"}), {"out": tmp_path / "[b]", "apply": Path("[b].yaml")})]
    assert _lines(capsys) == [
        "1,234 rows (train 1,000, test 234)",
        "  text: body  text (long, 1,000 missing)",
        "  id  text (long)",
        *(f"  c{n}  text (long)" for n in range(10)),
        "  and 1 more column, in the page of -o FOLDER",
        "",
        "1 error, 2 warnings, 1 note",
        " ✗ rows are in two splits",
        "   rows 1, 2, 3, 4, 5 of a.csv, ...",
        "   such as a, b, c",
        "   -s split.duplicates=drop -s 'seed=a b'",
        " ! [few]",
        "   rows 1, 2, 3, 4, 5 of a.csv",
        " ! one",
        "   row 1 of a.csv",
        " · the text",
        "   left out: languages, too few rows",
        "",
        f"page      {tmp_path}/[b]/report.html",
        "settings  [b].yaml: raypath run WORKFLOW -f [b].yaml",
    ]
    report = _report(columns=[_column(f"c{n}", "text") for n in range(13)])
    inspect.show_inspection(Namespace(data="a.csv", settings=[], out=None, apply=None))
    assert _lines(capsys) == [
        "1 row",
        *(f"  text: c{n}  text (long)" for n in range(13)),
        *("", "0 errors, 0 warnings, 0 notes"),
    ]
