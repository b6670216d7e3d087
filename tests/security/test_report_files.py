"""Files that commands write where their user says: no formulas, no commands, no links, readable by their owner only."""

from __future__ import annotations

import csv
import os
import shlex
from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError
from raypath.components.inspection.page.render import render
from raypath.components.inspection.report import Finding, InspectionReport, Severity
from raypath.deploy.api.inspection import inspect
from raypath.deploy.cli.main import main

ROWS = "review,label\n" + "the same words here,a\n" * 12 + "".join(f"other words {n},b\n" for n in range(30))


def test_file_names_are_no_formulas_in_the_list_of_rows(tmp_path: Path) -> None:
    (tmp_path / "=1+cmd.csv").write_text(ROWS)
    inspect(tmp_path / "=1+cmd.csv", out=tmp_path / "out")
    with (tmp_path / "out" / "rows.csv").open(newline="") as file:
        sources = {row["source"] for row in csv.DictReader(file)}
    assert sources == {"'=1+cmd.csv"}


def test_names_of_columns_are_no_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "label;touch ran"
    (tmp_path / "a.csv").write_text(ROWS.replace("review,label", f"review,{name}"))
    report = inspect(tmp_path / "a.csv")
    assert shlex.quote(f"read.label={name}") in render(report).replace("&#x27;", "'")
    finding = Finding(kind="x", severity=Severity.NOTE, text="", count=1, settings={"read.label": name})
    page = render(report.model_copy(update={"findings": [finding]}))
    assert "-s &#x27;read.label=label;touch ran&#x27;" in page
    assert main(["inspect", str(tmp_path / "a.csv")]) == 0
    assert f"-s read.label={name}" not in capsys.readouterr().out


def test_reports_are_private_and_follow_no_links(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(ROWS)
    (tmp_path / "mine").write_text("mine")
    out = tmp_path / "shared"
    out.mkdir()
    for name in ("report.html", "report.json", "rows.csv"):
        (out / name).symlink_to(tmp_path / "mine")
    before = os.umask(0o022)
    try:
        inspect(tmp_path / "a.csv", out=out, apply=tmp_path / "p.yaml")
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert (tmp_path / "mine").read_text() == "mine"
    assert {path.stat().st_mode & 0o777 for path in [*out.iterdir(), tmp_path / "p.yaml"]} == {0o600}
    (tmp_path / "q.yaml").symlink_to(tmp_path / "absent")
    with pytest.raises(ParamsError, match=r"q\.yaml exists"):
        inspect(tmp_path / "a.csv", apply=tmp_path / "q.yaml")


def test_the_page_is_one_page(tmp_path: Path) -> None:
    report = InspectionReport(
        source="{{body}}<script>",
        rows=1,
        splits={},
        label_kind="string",
        columns=[],
        classes=[],
        lengths=None,
        languages={},
        personal_data={},
        findings=[],
        skipped=[],
    )
    assert "<script>" not in render(report)
