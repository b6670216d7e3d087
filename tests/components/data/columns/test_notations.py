"""Numbers with a decimal comma and dates with points, as spreadsheets of many countries write them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from raypath.components import DataError, ParamsError
from raypath.components.data.columns.numeric import parse_number, with_point
from raypath.components.read import ReadParams
from raypath.deploy.api.inspection import inspect
from tests.components.reading import Read

PRICES: dict[str, Any] = {"inputs": ("text", "Preis (€)"), "kinds": {"Preis (€)": "number"}}


@pytest.mark.parametrize(
    ("text", "value"),
    [("12,50", 12.5), (" -1.234.567,8 ", -1234567.8), ("1.234", 1234.0), (",5", 0.5), ("7", 7.0), ("1,5e3", 1500.0)],
)
def test_a_number_with_a_comma(text: str, value: float) -> None:
    assert parse_number(with_point(text)) == value


@pytest.mark.parametrize("text", ["12.50", "1,234,567", "12.34,5", "1,2.3", "12,50 €", "abc", ","])
def test_other_text_is_no_number(text: str) -> None:
    assert parse_number(with_point(text)) is None


def test_what_is_no_text_stays() -> None:
    assert [with_point(value) for value in (1.5, None, "", " ")] == [1.5, None, "", " "]


def test_the_error_names_the_setting_that_reads_them(tmp_path: Path, reading: Read) -> None:
    path = tmp_path / "d.csv"
    path.write_text("text;Preis (€);label\na;12,50;x\nb;1.234,00;y\nc;;y\n")
    with pytest.raises(DataError, match=r"is not a finite number in row 1, 2 .*; set -s read\.decimal=, for"):
        reading(path, **PRICES)
    _, rows = reading(path, **PRICES, decimal=",")
    assert [row["input.Preis (€)"] for row in rows] == [12.5, 1234.0, None]
    path.write_text("text;Preis (€);label\na;12.50;x\n")
    with pytest.raises(DataError, match=r"is not a finite number in row 1 \(header not counted\); correct such rows"):
        reading(path, **PRICES, decimal=",")
    with pytest.raises(ParamsError, match="decimal"):
        ReadParams().override({"decimal": ";"})


def test_labels_and_json(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "d.csv").write_text("text;label\na;0,5\nb;2\n")
    assert [row["label"] for row in reading(tmp_path / "d.csv", kind="number", decimal=",")[1]] == [[0.5], [2.0]]
    rows = [{"text": "a", "label": "0,5"}, {"text": "b", "label": 1.5}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["label"] for row in reading(tmp_path / "d.jsonl", kind="number", decimal=",")[1]] == [[0.5], [1.5]]


def test_a_workbook_with_numbers_and_with_text_that_looks_like_them(tmp_path: Path, reading: Read) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    made = openpyxl.Workbook()
    for row in (["text", "Preis (€)", "am", "label"], ["a", 12.5, dt.date(2025, 3, 31), "x"]):
        made.active.append(row)
    made.save(tmp_path / "numbers.xlsx")
    made.active.append(["b", "1.234,5", "01.04.2025", "y"])
    made.save(tmp_path / "both.xlsx")
    columns: dict[str, Any] = {"inputs": ("text", "Preis (€)", "am"), "kinds": {"Preis (€)": "number", "am": "time"}}
    assert reading(tmp_path / "numbers.xlsx", **columns)[1][0]["input.Preis (€)"] == 12.5
    for name in ("numbers.xlsx", "both.xlsx"):
        _, rows = reading(tmp_path / name, **columns, decimal=",")
        assert [row["input.Preis (€)"] for row in rows] == [12.5, 1234.5][: len(rows)]
    assert [f"{row['input.am']:%Y-%m-%d}" for row in rows] == ["2025-03-31", "2025-04-01"]


def test_inspect_finds_them_and_writes_the_setting(tmp_path: Path) -> None:
    rows = [f"Dies ist der Text Nummer {n} mit einigen Worten;{n % 50},{n % 7}" for n in range(60)]
    (tmp_path / "d.csv").write_text("Meinung;Note\n" + "\n".join(rows) + "\n")
    report = inspect(tmp_path / "d.csv", {"read.label": "Note"}, apply=tmp_path / "p.yaml")
    note = next(column for column in report.columns if column.name == "Note")
    assert (note.kind, report.label_kind) == ("number", "number")
    assert "decimal comma" in note.why
    assert yaml.safe_load((tmp_path / "p.yaml").read_text())["read"]["decimal"] == ","
