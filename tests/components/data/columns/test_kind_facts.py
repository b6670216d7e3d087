"""What kinds of columns say of themselves and of their values, and nested fields by dotted names."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from raypath.components.core.columns import Column
from raypath.components.core.errors import DataError
from raypath.components.data.columns.catalog import KINDS, check_kinds, kind_of
from raypath.components.data.columns.nested import columns_of, field_names, field_of, has_key, key_names, value_of
from raypath.components.data.columns.spreadsheet import safe_cell, safe_column

WANTED = {
    "text": ("text", str, "BYTES", "A lovely cup of tea", pa.string()),
    "category": ("a string, an integer or a boolean", str | int | bool, "BYTES", "tea", pa.string()),
    "set": ("a list of classes", list[str], "BYTES", ["tea", "green"], pa.list_(pa.string())),
    "number": ("a finite number", float, "FP64", 4.5, pa.float64()),
    "boolean": ("true or false, yes or no, 1 or 0", bool, "BOOL", True, pa.bool_()),
    "time": (
        "a date or time in ISO 8601, such as 2025-03-31T09:30:00+02:00, or 31.03.2025",
        str,
        "BYTES",
        "2025-03-31T09:30:00Z",
        pa.timestamp("us", tz="UTC"),
    ),
    "messages": (
        "a list of messages with role and content",
        list[dict[str, Any]],
        "BYTES",
        [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes, please."}],
        pa.string(),
    ),
    "preference": (
        "an object with prompt, chosen and rejected",
        dict[str, Any],
        "BYTES",
        {"prompt": "Tea?", "chosen": "Yes, please.", "rejected": "No."},
        pa.string(),
    ),
}
ASKED, ANSWERED = {"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes"}
DESCRIBED: dict[str, tuple[list[Any], dict[str, float]]] = {
    "text": (["ab", None, "abcd"], {"mean_characters": 3.0, "max_characters": 4.0}),
    "category": (["a", None, "b", "a"], {"distinct": 2.0}),
    "set": ([["a", "b"], None, ["a"]], {"distinct": 2.0}),
    "number": ([1.0, None, 4.0, -2.0], {"mean": 1.0, "min": -2.0, "max": 4.0}),
    "boolean": ([True, None, False, False, False], {"true": 0.25}),
    "time": (["1970-01-01T00:00:02Z", None, "1970-01-01T00:00:01Z"], {"min": 1.0, "max": 2.0}),
    "messages": (
        [[ASKED, ANSWERED], None, [ASKED, ANSWERED, ASKED, ANSWERED]],
        {"mean_messages": 3.0, "max_characters": 154.0},
    ),
    "preference": (
        [{"prompt": "Tea?", "chosen": "Yes", "rejected": "No"}, None],
        {"max_characters": 144.0},
    ),
}


def test_the_kinds() -> None:
    assert list(KINDS) == list(WANTED)


@pytest.mark.parametrize("name", KINDS)
def test_what_a_kind_says_of_itself(name: str) -> None:
    kind = kind_of(name)
    assert kind.name == name
    assert (kind.wanted, kind.request, kind.datatype, kind.example, kind.type) == WANTED[name]
    assert not kind.column([kind.example])[1].any()


@pytest.mark.parametrize("name", KINDS)
def test_descriptions(name: str) -> None:
    values, wanted = DESCRIBED[name]
    kind = kind_of(name)
    assert kind.describe(kind.column(values)[0]) == {"rows": len(values), "missing": 1.0, **wanted}
    nothing = kind.describe(kind.column([None])[0])
    assert nothing == {"rows": 1.0, "missing": 1.0, **dict.fromkeys(wanted, 0.0)}


def test_all_notations_of_booleans() -> None:
    parse = kind_of("boolean").parse
    for words, value in (("true yes y t 1 1.0 TRUE", True), ("false no n f 0 0.0 No", False)):
        assert [parse(word) for word in words.split()] == [value] * 7
    assert [parse(value) for value in (1, 0, 1.0, 0.0, True, False)] == [True, False] * 3


def test_a_kind_of_a_stranger() -> None:
    long = "antigravity:" + "K" * 100
    wanted = (
        f"the model names the kind '{long[:100]}' of a column, which is neither built in nor listed; "
        "list it with the tasks (serve.tasks, RAYPATH_TASKS) if its code is yours"
    )
    with pytest.raises(DataError) as caught:
        check_kinds([Column(name="x", kind=long, stored="input.x")])
    assert str(caught.value) == wanted


ROW = {"a": {"b": {"c": 1}, "d": None}, "a.d": 5, "e": {}, "f": {str(n): n for n in range(33)}, "g.h": {"i": 2}}


def test_keys_of_objects() -> None:
    assert list(key_names(ROW)) == ["a.b.c", "a.d", "a.d", "e", "f", "g.h.i"]
    assert len(list(key_names({"f": {str(n): n for n in range(32)}}))) == 32
    found = {name: (has_key(ROW, name), value_of(ROW, name)) for name in ("a.b.c", "a.d", "a.x", "g.h.i", "e", "f.32")}
    assert found == {
        "a.b.c": (True, 1),
        "a.d": (True, 5),
        "a.x": (False, None),
        "g.h.i": (True, 2),
        "e": (True, {}),
        "f.32": (True, 32),
    }
    assert value_of({"a": {"d": None}}, "a.d") is None
    assert has_key({"a": {"d": None}}, "a.d")


def test_fields_of_structs() -> None:
    table = pa.table({"a": [{"b": {"c": 1}, "d.e": "x"}, None], "f": ["y", "z"]})
    assert field_names(table.schema, ()) == ["a.b.c", "a.d.e", "f"]
    assert columns_of(table.schema, ["a.b.c", "a.d.e", "f", "none"]) == ["a", "f", "none"]
    assert field_of(table, "a.b.c").to_pylist() == [1, None]
    assert field_of(table, "a.d.e").to_pylist() == ["x", None]
    assert field_of(table, "f").to_pylist() == ["y", "z"]


CELLS = {
    "=1+1": "'=1+1", "+a": "'+a", "-a": "'-a", "@x": "'@x", "\tx": "'\tx", "\rx": "'\rx", "-1": "-1", "+1.5": "+1.5",
    "-2e5": "-2e5", "-1E-5": "-1E-5", "-1a": "'-1a", "a=b": "a=b", "": "", "- 1": "'- 1",
}  # fmt: skip


def test_cells_of_spreadsheets() -> None:
    assert {cell: safe_cell(cell) for cell in CELLS} == CELLS
    assert [safe_cell(value) for value in (5, None, -1.5)] == [5, None, -1.5]
    for dtype in (pa.string(), pa.large_string()):
        column = pa.chunked_array([pa.array([*CELLS, None], dtype)])
        assert safe_column(column).to_pylist() == [*CELLS.values(), None]
    numbers = pa.chunked_array([[-1, 2]])
    assert safe_column(numbers) is numbers
