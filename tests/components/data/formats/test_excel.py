"""Excel workbooks: the values of one sheet, as its user sees them."""

from __future__ import annotations

import datetime as dt
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from raypath.components import DataError
from tests.components.reading import ROWS, Read

openpyxl = pytest.importorskip("openpyxl")


def book(path: Path, **sheets: list[list[Any]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def rewrite(path: Path, change: Any) -> None:
    """Change the XML of the first sheet."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/worksheets/sheet1.xml"] = change(parts["xl/worksheets/sheet1.xml"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def test_rows_as_written(tmp_path: Path, reading: Read) -> None:
    path = book(tmp_path / "a.xlsx", S=[["text", "label"], *([row["text"], row["label"]] for row in ROWS)])
    assert reading(path)[1] == ROWS


def test_numbers_dates_and_blank_cells(tmp_path: Path, reading: Read) -> None:
    day, moment = dt.datetime(2024, 1, 2), dt.datetime(2024, 1, 2, 3, 4, 5)
    values = ["007", 3, 3.0, 2.5, True, day, moment, 1e20, dt.time(1, 2)]
    rows = [["text", "label", None], *([value, "x", None] for value in values), ["", None, " "], [None, None]]
    path = book(tmp_path / "a.xlsx", S=[[None], *rows])
    found = [row["text"] for row in reading(path)[1]]
    assert found == ["007", "3", "3", "2.5", "true", "2024-01-02", "2024-01-02 03:04:05", "1e+20", "01:02:00"]
    path = book(tmp_path / "b.xlsx", S=[["text", "label"], ["a", 1], ["b", 2.0]])
    dataset, found = reading(path)
    assert (dataset.label_kind, [row["label"] for row in found]) == ("int", ["1", "2"])


def test_never_the_wrong_sheet(tmp_path: Path, reading: Read) -> None:
    rows = [["text", "label"], ["a", "x"]]
    path = book(tmp_path / "a.xlsx", First=rows, Second=[["text", "label"], ["b", "y"]])
    with pytest.raises(DataError, match=r"a\.xlsx has several sheets with rows; set -s read\.sheet= to one of First"):
        reading(path)
    assert reading(path, sheet="Second")[1] == [{"text": "b", "label": "y"}]
    with pytest.raises(DataError, match=r"no sheet Third; set -s read.sheet= to one of First, Second"):
        reading(path, sheet="Third")
    assert len(reading(book(tmp_path / "b.xlsx", Empty=[], Full=rows))[1]) == 1
    made = openpyxl.load_workbook(path)
    made["First"].sheet_state = "hidden"
    made.save(path)
    assert reading(path)[1] == [{"text": "b", "label": "y"}]


def test_a_blank_row_keeps_the_numbers_of_the_others(tmp_path: Path, reading: Read) -> None:
    path = book(tmp_path / "a.xlsx", S=[["text", "label"], ["a", "x"], [None, None], ["b", "y"], ["SECRET", None]])
    with pytest.raises(DataError, match=r"column label is empty in row 4 "):
        reading(path)
    assert [row["text"] for row in reading(path, nulls="drop")[1]] == ["a", "b"]


def test_formulas(tmp_path: Path, reading: Read) -> None:
    path = book(tmp_path / "a.xlsx", S=[["text", "label"], ["a", "x"], ["b", None], ["c", '=UPPER("y")']])
    with pytest.raises(DataError, match=r"a.xlsx: column label has a formula without a value in row 3; open the file"):
        reading(path, nulls="drop")
    rewrite(path, lambda xml: re.sub(rb'(<c r="B4")[^>]*>(<f>.*?</f>)<v ?/?>(</v>)?', rb'\1 t="str">\2<v>Y</v>', xml))
    assert [row["label"] for row in reading(path, nulls="drop")[1]] == ["x", "Y"]
    path = book(tmp_path / "b.xlsx", S=[["text", "label"], ["a", "x"], ["b", "#N/A"]])
    with pytest.raises(DataError, match=r"column label has the error #N/A in row 2"):
        reading(path)


def test_a_wrong_size_of_the_sheet(tmp_path: Path, reading: Read) -> None:
    path = book(tmp_path / "a.xlsx", S=[["text", "label"], ["a", "x"], ["b", "y"]])
    rewrite(path, lambda xml: xml.replace(b'ref="A1:B3"', b'ref="A1"'))
    assert [row["label"] for row in reading(path)[1]] == ["x", "y"]


@pytest.mark.parametrize(("data", "said"), [(b"SECRET", "corrupt Excel"), (None, "is not an Excel file")])
def test_damaged_workbooks(tmp_path: Path, reading: Read, data: bytes | None, said: str) -> None:
    path = tmp_path / "a.xlsx"
    if data is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "SECRET")
    else:
        path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        reading(path)
