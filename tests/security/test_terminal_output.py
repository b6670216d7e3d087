"""Names and texts of files and registries cannot steer a terminal or a spreadsheet."""

import csv
import io
import logging
from pathlib import Path

import pyarrow as pa
import pytest
from rich.text import Text

from raypath.components.core.errors import DataError, printable
from raypath.components.data.columns.spreadsheet import safe_cell
from raypath.components.data.sources.files import find
from raypath.components.serving.metering.usage import UsageRow, UsageTotals
from raypath.deploy.cli.prediction.output import _csv
from raypath.deploy.cli.security.keys import _write_csv
from raypath.deploy.console.terminal import Terminal
from raypath.deploy.execution import step

ATTACK = "\x1b]0;owned\x07\x1b[2Jname\x9b1A\u202egpj.exe"
SHOWN = r"\x1b]0;owned\x07\x1b[2Jname\x9b1A\u202egpj.exe"
FORMULAS = ["=HYPERLINK(1)", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]
HARMLESS = ["text", "-1.5", "+3", "-2e-5", "a=b", "", "'quoted"]


def test_an_error_shows_control_characters_as_escapes() -> None:
    assert str(DataError(f"column {ATTACK}", fix=ATTACK)) == f"column {SHOWN}; {SHOWN}"
    assert printable("two\nlines\tand ünïcode 日本 👩‍👧") == "two\nlines\tand ünïcode 日本 👩‍👧"


def test_a_file_name_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m.xyz").touch()
    with pytest.raises(DataError) as caught:
        find(str(tmp_path), logging.getLogger("raypath.test"))
    assert "\x1b" not in str(caught.value)
    assert r"a\x1b[31m.xyz" in str(caught.value)


def test_a_warning_of_a_step() -> None:
    with step._collect_messages() as (warnings, _):
        logging.getLogger("raypath.steps").warning("column %s", ATTACK)
    assert warnings == [f"column {SHOWN}"]


@pytest.mark.parametrize("shown", [ATTACK, Text(ATTACK, style="red")], ids=["text", "styled"])
def test_everything_on_the_console(shown: str | Text) -> None:
    paper = io.StringIO()
    Terminal(file=paper, force_terminal=True, width=200, highlight=False).print(shown, markup=False)
    written = paper.getvalue()
    for part in ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\x07"):
        assert part not in written
    assert r"\x1b]0;owned" in written
    assert ("\x1b[31m" in written) is isinstance(shown, Text), "colors of Rich itself stay"


def test_csv_of_predictions_has_no_formulas(tmp_path: Path) -> None:
    texts = FORMULAS + HARMLESS
    table = pa.table({"text": texts, "=label": pa.array([-1.5] * len(texts)), "sets": [["=a", "b"]] * len(texts)})
    _csv(table.schema, iter([table]), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["text", "'=label", "sets"]
    assert [row[0] for row in rows] == [f"'{text}" for text in FORMULAS] + HARMLESS
    assert {(row[1], row[2]) for row in rows} == {("-1.5", "'=a|b")}


def test_csv_of_usage_has_no_formulas(tmp_path: Path) -> None:
    formulas = [text for text in FORMULAS if "\r" not in text]  # a name of a key has no line breaks
    rows = [UsageRow("k1", name, UsageTotals()) for name in formulas + HARMLESS]
    _write_csv(tmp_path / "usage.csv", rows, "key")
    with (tmp_path / "usage.csv").open(newline="") as file:
        _, *read = csv.reader(file)
    assert [row[1] for row in read] == [f"'{text}" for text in formulas] + HARMLESS


def test_numbers_are_not_changed() -> None:
    assert [safe_cell(value) for value in [-1, -1.5, None, True]] == [-1, -1.5, None, True]
