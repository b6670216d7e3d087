"""`raypath inspect`: from files to a report, a page and settings that a run takes; nothing is shown of the texts."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path

import pytest

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.inspection.report import InspectionReport, Severity
from raypath.deploy.api.inspection import inspect
from raypath.deploy.cli import main as cli
from raypath.deploy.execution.overrides import from_file
from raypath.workflows.text_classification import TextClassification
from tests.components.inspection.planted import texts

WORDS = {"inspect.base": "none"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """400 rows with a title, an author and a rating; row 11 repeats row 1, rows 20 and 21 lack something."""
    monkeypatch.chdir(tmp_path)
    rows, labels = texts(400)
    rows[10] = rows[0]
    rows[19], labels[20] = "", ""
    rows[30] += " Write to <b>jane@example.com</b>"
    with open("mine.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["nr", "remark", "verdict", "author"])
        writer.writerows((n, row, label, f"a{n % 9}") for n, (row, label) in enumerate(zip(rows, labels, strict=True)))
    return tmp_path / "mine.csv"


def test_columns_are_guessed_and_the_settings_are_those_of_a_run(data: Path) -> None:
    report = inspect("mine.csv", WORDS, out="report", apply="params.yaml")
    assert {column.name: column.role for column in report.columns} == {
        "nr": "",
        "remark": "text",
        "verdict": "label",
        "author": "",
    }
    findings = {finding.kind: finding for finding in report.findings if finding.kind != "missing"}
    assert [place.row for place in findings["duplicates"].rows] == [11]
    assert [place.row for place in findings["personal_data"].rows] == [31]
    missing = [finding for finding in report.findings if finding.kind == "missing"]
    assert [(finding.count, finding.severity, finding.settings) for finding in missing] == [
        (1, Severity.ERROR, {"read.nulls": "drop"})
    ] * 2
    changes = from_file(Path("params.yaml"))
    assert changes == report.settings()
    params = TextClassification().override(changes)
    assert (params.read.uri, params.read.text, params.read.label) == ("mine.csv", "remark", "verdict")
    assert (params.read.nulls, params.split.duplicates) == ("drop", "drop")


def test_the_files_have_all_rows_and_no_texts(data: Path) -> None:
    report = inspect("mine.csv", WORDS, out="report")
    page = Path("report/report.html").read_text(encoding="utf-8")
    assert InspectionReport.model_validate_json(Path("report/report.json").read_text(encoding="utf-8")) == report
    rows = list(csv.DictReader(Path("report/rows.csv").read_text(encoding="utf-8").splitlines()))
    assert {"finding": "duplicates", "source": "mine.csv", "row": "11"} in rows
    for name in ("report.html", "report.json", "rows.csv"):
        text = Path("report", name).read_text(encoding="utf-8")
        assert "jane" not in text
        assert "example.com" not in text
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_the_given_columns_win(data: Path) -> None:
    report = inspect("mine.csv", WORDS | {"read.text": "remark", "read.label": "author", "read.group": "verdict"})
    assert {column.name: column.role for column in report.columns if column.role} == {
        "remark": "text",
        "author": "label",
        "verdict": "group",
    }
    assert {each.label for each in report.classes} == {f"a{n}" for n in range(9)}


def test_several_inputs_are_one_text(data: Path) -> None:
    report = inspect("mine.csv", WORDS | {"read.inputs": "remark,author", "read.label": "verdict"})
    assert [column.name for column in report.columns if column.role == "text"] == ["remark", "author"]
    found = {finding.kind: finding for finding in report.findings}
    assert [place.row for place in found["near_duplicates"].rows] == [11], "another author"
    assert "duplicates" not in found


def test_mistakes_are_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="no file at none"):
        inspect("none.csv")
    Path("numbers.csv").write_text("a,b\n1.5,2.5\n3.5,4.5\n")
    with pytest.raises(DataError, match="no column looks like a text; there is a, b"):
        inspect("numbers.csv")
    with pytest.raises(DataError, match="has no column body"):
        inspect("mine.csv", {"read.text": "body"})
    with pytest.raises(ParamsError, match=r"did you mean inspect\.texts"):
        inspect("mine.csv", {"inspect.text": "true"})
    Path("params.yaml").touch()
    assert cli.main(["inspect", "mine.csv", "--apply", "params.yaml"]) == 2
    assert capsys.readouterr().err.startswith("raypath: params.yaml exists; remove it")


def test_the_command_prints_a_summary_or_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-s", "inspect.base=none", "-o", "out", "--apply", "p.yaml"]
    assert cli.main(["inspect", "mine.csv", *options]) == 0
    shown = capsys.readouterr().out
    assert "400 rows" in shown
    assert "-s split.duplicates=drop" in shown
    assert "row 11 of mine.csv" in shown
    assert "raypath run WORKFLOW -f p.yaml" in shown
    assert cli.main(["inspect", "mine.csv", "-s", "inspect.base=none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 400
    assert cli.main(["check", "text_classification", "-f", "p.yaml"]) == 0


def test_columns_that_are_not_used_have_one_note(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page has 12 columns in sight, those with a role first, and folds the others."""
    rows, labels = texts(60)
    names = [f"c{n:02d}" for n in range(20)]
    with open("wide.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "remark", "verdict"])
        for n in range(60):
            writer.writerow([*(("", f"{n}.5")[(n + m) % 2] for m in range(20)), rows[n], labels[n]])
    report = inspect("wide.csv", WORDS, out="wide")
    [missing] = [finding for finding in report.findings if finding.kind == "missing"]
    assert (missing.severity, missing.count) == (Severity.NOTE, 20)
    assert missing.text == "20 other columns have empty values (c00, c01, c02, c03, c04, ...)"
    page = Path("wide/report.html").read_text(encoding="utf-8")
    assert "<summary>10 more columns</summary>" in page
    assert page.index("<bdi>verdict</bdi>") < page.index("<bdi>c00</bdi>") < page.index("<details>")
    assert cli.main(["inspect", "wide.csv", "-s", "inspect.base=none"]) == 0
    assert "and 10 more columns, in the page of -o FOLDER" in capsys.readouterr().out


def test_a_terminal_gets_indented_lines(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from raypath.deploy.cli import inspect as command
    from raypath.deploy.console.terminal import Terminal

    for width in (60, 80, 200):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "console", Terminal(force_terminal=True, color_system=None, width=width))
            assert cli.main(["inspect", "mine.csv", "-s", "inspect.base=none"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        assert all(line[:2] in ("  ", " ✗", " !", " ·") for line in lines[1:] if line[:1] == " ")
        assert sum("personal data" in line for line in lines) == 1


def test_findings_are_sorted_and_agree_with_their_numbers(data: Path) -> None:
    report = inspect("mine.csv", WORDS)
    order = [list(Severity).index(finding.severity) for finding in report.findings]
    assert order == sorted(order)
    found = {finding.kind: finding.text for finding in report.findings}
    assert found["duplicates"].startswith("1 row (0.2%) repeats the text of an earlier row")
    assert found["personal_data"].startswith("1 row seems to have personal data: 1 with an e-mail address;")


def test_names_of_columns_and_classes_cannot_make_the_page_do_anything(data: Path) -> None:
    Path("odd.csv").write_text(
        'text,"<img src=x onerror=alert(1)>"\n'
        + "".join(f"a text of words {n},<script>{n % 2}</script>\n" for n in range(60))
    )
    inspect("odd.csv", WORDS, out="odd")
    page = Path("odd/report.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_files_are_opened_with_the_settings(tmp_path: Path) -> None:
    lines = [f"Größe {n} fällt für mich zu klein aus;{'ja' if n % 2 else 'nein'}" for n in range(40)]
    (tmp_path / "d.csv").write_text("Meinung;gut\n" + "\n".join(lines), encoding="cp1252")
    with pytest.raises(DataError, match="cp1252"):
        inspect(tmp_path / "d.csv", WORDS)
    report = inspect(tmp_path / "d.csv", {**WORDS, "read.encoding": "cp1252"}, apply=tmp_path / "p.yaml")
    assert {column.role: column.name for column in report.columns} == {"text": "Meinung", "label": "gut"}
    assert TextClassification().override(from_file(tmp_path / "p.yaml")).read.encoding == "cp1252"


def test_a_sheet_and_a_query(tmp_path: Path) -> None:
    rows = [["Meinung", "gut"], *([f"Größe {n} fällt für mich zu klein aus", str(n % 2)] for n in range(40))]
    with sqlite3.connect(tmp_path / "50% ?#.db") as database:
        database.execute("create table t (Meinung, gut)")
        database.executemany("insert into t values (?, ?)", rows[1:])
    database.close()
    query = {"read.query": "select Meinung, gut from t order by rowid"}
    assert inspect(f"sqlite:///{tmp_path}/50% ?#.db", {**WORDS, **query}).rows == 40
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["Auswertung"])
    sheet = book.create_sheet("Daten")
    for row in rows:
        sheet.append(row)
    book.save(tmp_path / "d.xlsx")
    assert inspect(tmp_path / "d.xlsx", {**WORDS, "read.sheet": "Daten"}).rows == 40
