"""Kinds of columns: what each accepts, how it is stored and rendered, and what a kind of one's own takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, ParamsError
from raypath.components.core.columns import Column
from raypath.components.data.columns.catalog import KINDS, check_kinds, kind_of
from raypath.components.data.rendering import Renderer
from raypath.components.read import ReadParams, read
from raypath.components.tasks.schemas import Request, request_type
from tests.components.data.colour import Colour

COLOUR = f"{Colour.__module__}:Colour"
NOON = datetime(2025, 3, 31, 12, 0, tzinfo=UTC)
VALUES: dict[str, list[tuple[Any, Any, str]]] = {
    "text": [("a", "a", "a"), (" a\nb ", " a\nb ", " a\nb ")],
    "category": [(" tea ", "tea", "tea"), (3, "3", "3"), (3.0, "3", "3"), (True, "true", "true")],
    "set": [(["a", "b", "a"], ["a", "b"], "a, b"), ("a | b", ["a", "b"], "a, b"), ('["a"]', ["a"], "a")],
    "number": [(3, 3.0, "3"), (" 4.5 ", 4.5, "4.5"), (Decimal("0.25"), 0.25, "0.25"), ("1e6", 1e6, "1000000")],
    "boolean": [("Yes", True, "yes"), (0, False, "no"), ("1.0", True, "yes"), (False, False, "no"), ("F", False, "no")],
    "time": [
        ("2025-03-31", NOON.replace(hour=0), "2025-03-31"),
        ("2025-03-31T14:00:00+02:00", NOON, "2025-03-31 12:00"),
        (date(2025, 3, 31), NOON.replace(hour=0), "2025-03-31"),
        (NOON, NOON, "2025-03-31 12:00"),
        ("31.03.2025", NOON.replace(hour=0), "2025-03-31"),
        (" 3.4.2025 12:00", NOON.replace(month=4, day=3), "2025-04-03 12:00"),
    ],
}
CHOICE = "chosen: assistant: Yes\nrejected: assistant: No"
ASKED = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes ☕"}]
STORED = '{"messages":[{"role":"user","content":"Tea?"},{"role":"assistant","content":"Yes ☕"}]}'
PAIR = (
    '{"messages":[{"role":"user","content":"Tea?"}],"chosen":[{"role":"assistant","content":"Yes"}],'
    '"rejected":[{"role":"assistant","content":"No"}]}'
)
VALUES["messages"] = [
    (ASKED, STORED, "user: Tea?\nassistant: Yes ☕"),
    ({"messages": ASKED, "tools": []}, STORED, "user: Tea?\nassistant: Yes ☕"),
    (STORED, STORED, "user: Tea?\nassistant: Yes ☕"),
]
VALUES["preference"] = [
    ({"prompt": "Tea?", "chosen": "Yes", "rejected": "No"}, PAIR, f"user: Tea?\n{CHOICE}"),
    (PAIR, PAIR, f"user: Tea?\n{CHOICE}"),
]
INVALID: dict[str, list[Any]] = {
    "text": [3, "\ud800", ["a"]],
    "category": [2.5, ["a"], {}],
    "set": [[["a"]], [2.5], "[a"],
    "number": ["4,5", "abc", True, float("inf"), "1_000"],
    "boolean": ["maybe", 2, []],
    "time": ["31.02.2025", "03/04/2025", "3.4.25", "soon", 20250331],
    "messages": ["Tea?", 3, [], [3], ASKED[:1], [{"role": "user", "content": [{"type": "image_url"}]}, ASKED[1]]],
    "preference": ["Tea?", {"prompt": "Tea?", "chosen": "Yes", "rejected": "Yes"}, {"chosen": "a", "rejected": "b"}],
}


@pytest.mark.parametrize("name", KINDS)
def test_values_of_any_format(name: str) -> None:
    kind = kind_of(name)
    given = [value for value, _, _ in VALUES[name]]
    column, invalid = kind.column([*given, None, "  ", float("nan")])
    assert column.type == kind.type
    assert column.to_pylist() == [*(stored for _, stored, _ in VALUES[name]), None, None, None]
    assert not invalid.any(), "a missing value is not an invalid one"
    assert [kind.render(value) for value in column.to_pylist()[: len(given)]] == [text for _, _, text in VALUES[name]]
    described = kind.describe(column)
    assert (described["rows"], described["missing"]) == (len(given) + 3, 3)
    assert all(isinstance(value, float) for value in described.values())


@pytest.mark.parametrize("name", KINDS)
def test_other_values_are_invalid(name: str) -> None:
    column, invalid = kind_of(name).column(INVALID[name])
    assert invalid.all()
    assert column.null_count == len(INVALID[name])


def test_tensors() -> None:
    assert np.isnan(kind_of("number").tensor(pa.array([1.5, None]))[1, 0])
    assert kind_of("boolean").tensor(pa.array([True, False])).tolist() == [[1.0], [0.0]]
    days = kind_of("time").tensor(kind_of("time").column(["1970-01-03T12:00:00Z"])[0])
    assert (days.dtype, days.tolist()) == (np.float32, [[2.5]])
    with pytest.raises(TypeError, match="text has no form as a tensor"):
        kind_of("text").tensor(pa.array(["a"]))


def test_unknown_kinds() -> None:
    with pytest.raises(ParamsError, match="unknown kind txt; use one of text, category"):
        kind_of("txt")
    with pytest.raises(ParamsError, match="cannot be imported"):
        kind_of("nowhere.at_all:Kind")
    with pytest.raises(ParamsError, match="is not a ColumnKind"):
        kind_of("pathlib:Path")


def test_a_model_names_no_kind_whose_code_would_be_imported() -> None:
    stranger = Column(name="x", kind="antigravity:Kind", stored="input.x")
    with pytest.raises(DataError, match="names the kind 'antigravity:Kind' of a column"):
        check_kinds([stranger])
    check_kinds([stranger], ["antigravity:Kind"])
    check_kinds([Column(name="x", kind=COLOUR, stored="input.x")])


def test_a_kind_of_ones_own_needs_no_change_elsewhere(make_context: Callable[..., Context], tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("name,colour,label\nrose,#ff0000,a\nsky,#0000ff,b\n,,b\n")
    params = ReadParams(uri=str(tmp_path / "d.csv"), inputs=("name", "colour"), kinds={"colour": COLOUR}, nulls="drop")
    ctx = make_context("read")
    made = read.fn(ctx, params)
    table = pq.read_table(ctx.out)
    assert table["input.colour"].to_pylist() == [[255, 0, 0], [0, 0, 255]]
    renderer = Renderer(made.columns, "fields")
    assert renderer.table(table) == ["name: rose\ncolour: red", "name: sky\ncolour: another colour"]
    assert renderer.values({"name": ["rose"], "colour": ["#ff0000"]}) == renderer.table(table)[:1], "as in service"
    assert kind_of(COLOUR).tensor(table["input.colour"].combine_chunks()).tolist()[1] == [0, 0, 1]
    given = request_type(Request, renderer.columns).model_validate({"rows": [{"name": "a", "colour": "#00ff00"}]})
    assert given.model_dump()["rows"] == [{"name": "a", "colour": "#00ff00"}]
    (tmp_path / "d.csv").write_text("name,colour,label\nrose,#ff0000,a\nsky,blue,b\n")
    with pytest.raises(DataError, match=r"d\.csv: column colour is not a colour such as #ff0000 in row 2"):
        read.fn(make_context("again"), params.model_copy(update={"nulls": "error"}))
