"""Kinds of columns at the bounds of the rules, with the reason, and which column gets a role."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pytest

from raypath.components.core.errors import DataError
from raypath.components.inspection.columns import guess
from raypath.components.inspection.columns.guess import Profile, check_number, guess_columns, kind_of, profile


def _profile(values: Sequence[str | None], name: str = "c") -> Profile:
    [made] = profile([pa.table({name: pa.array(values, pa.string())})])
    return made


def _mostly(value: str, other: str, others: int, rows: int = 1_000) -> list[str]:
    return [value] * (rows - others) + [other] * others


WORDS = "one two three four five six seven"


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        ([], "empty", "it has no values"),
        ([None, "", "  "], "empty", "it has no values"),
        (["true", "No", " yes ", "FALSE"], "boolean", "all values are true or false, yes or no"),
        (["true", "maybe"], "category", "2 distinct values"),
        (["[]", ' ["a", 1] '], "set", "values are lists"),
        (_mostly("[1]", "x", 9), "set", "values are lists"),
        (_mostly("[1]", "x", 10), "category", "2 distinct values"),
        (["2026-11-30", "2026/1/2 10:00", "2026.1.2T10:00:00Z", "30.11.2026", "1/2/2026"], "time", "values are dates"),
        (_mostly("2026-11-30", "x", 10), "category", "2 distinct values"),
        (["1,5", "2", "3"], "number", "values are numbers with a decimal comma, 3 distinct"),
        (["1.234,56", ",5", "+7,1234", "-1"], "number", "values are numbers with a decimal comma, 4 distinct"),
        (["1,234", "1,5", "x"], "category", "3 distinct values"),
        (["1.5", "-2", "+3.", ".5", "1e-3", " 7E+2 "], "number", "values are numbers, 6 distinct"),
        (_mostly("1.5", "x", 9), "number", "values are numbers, 2 distinct"),
        (_mostly("1.5", "x", 10), "category", "2 distinct values"),
        ([str(n % 20) for n in range(200)], "category", "20 distinct integers"),
        ([str(n % 21) for n in range(210)], "number", "values are numbers, 21 distinct"),
        ([str(n % 10) for n in range(99)], "number", "values are numbers, 10 distinct"),
        ([str(n % 10) for n in range(100)], "category", "10 distinct integers"),
        (["1", "2"], "category", "2 distinct integers"),
        (["1", "2.0", "3"], "number", "values are numbers, 3 distinct"),
        (["5", "5"], "category", "1 distinct integer"),
        (["a|b", "a", "b", "c", "d"], "category", "5 distinct values"),
        (["a|b", "a|b", "b", "c", "d"], "set", "values have parts separated by |"),
        (["a | b of seven words in all, here"] * 3, "text", "1 distinct value of 9 words on average"),
        (["a"] * 30, "category", "1 distinct value"),
        ([f"v{n % 20}" for n in range(100)], "category", "20 distinct values"),
        ([f"v{n % 21}" for n in range(100)], "text", "21 distinct values of 1 word on average"),
        ([f"v{n % 50}" for n in range(1_000)], "category", "50 distinct values"),
        ([f"v{n % 51}" for n in range(1_000)], "text", "51 distinct values of 1 word on average"),
        ([f"v{n % 1_000}" for n in range(40_000)], "category", "1,000 distinct values"),
        ([f"v{n % 1_001}" for n in range(40_000)], "text", "1,001 distinct values of 1 word on average"),
        ([WORDS[:27]] * 5, "category", "1 distinct value"),
        ([WORDS] * 5, "text", "1 distinct value of 7 words on average"),
        ([f"u{n}" for n in range(20)], "category", "20 distinct values"),
        ([f"u{n}" for n in range(21)], "id", "every value is another one, without spaces"),
        ([f"{'u' * 62}{n:02}" for n in range(21)], "id", "every value is another one, without spaces"),
        ([f"{'u' * 63}{n:02}" for n in range(21)], "text", "21 distinct values of 1 word on average"),
        ([f"u{n}" + " v" * (n < 5) for n in range(25)], "id", "every value is another one, without spaces"),
        ([f"u{n}" + " v" * (n < 6) for n in range(25)], "text", "25 distinct values of 1 word on average"),
        ([f"{WORDS} {n}" for n in range(10_001)], "text", "more than 10,000 distinct values of 8 words on average"),
    ],
)  # fmt: skip
def test_kinds_and_reasons(values: list[str | None], kind: str, why: str) -> None:
    assert kind_of(_profile(values)) == (kind, why)


@pytest.mark.parametrize(("rows", "kind"), [(20, "number"), (21, "id")])
@pytest.mark.parametrize("name", ["id", "row_id", "Index", "row nr", "nr", "number"])
def test_numbers_whose_name_says_so_identify_rows(rows: int, kind: str, name: str) -> None:
    whole = [str(n) for n in range(rows)]
    why = "every value is another integer, and the name says so"
    assert kind_of(_profile(whole, name)) == (kind, why if kind == "id" else f"values are numbers, {rows} distinct")
    assert kind_of(_profile(whole, "price"))[0] == "number"
    assert kind_of(_profile([*whole[1:], whole[1]], name))[0] == "number", "a value occurs twice"
    assert kind_of(_profile([f"{value}.5" for value in whole], name))[0] == "number"


def test_counts_of_a_column() -> None:
    found = _profile(["Train", " test ", "dev", None, "", "two words"])
    assert (found.rows, found.missing, found.present, found.distinct) == (6, 2, 4, 4)
    assert (found.characters, found.words, found.splits) == (5 + 6 + 3 + 9, 5, 3)
    assert found.share("number") == 0
    assert _profile(["x", " x", "y"]).distinct == 2, "spaces around a value do not count"
    assert Profile("empty").share("number") == 0


def test_distinct_values_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guess, "MAX_DISTINCT", 3)
    tables = [pa.table({"c": [f"v{n}", f"w{n}"]}) for n in range(10)]
    [found] = profile(tables)
    assert 3 < found.distinct <= 7
    assert (found.rows, found.words) == (20, 20)


def test_columns_of_several_files_are_joined_by_name() -> None:
    first, second = pa.table({"a": ["1", "2"]}), pa.table({"b": ["x"], "a": [None]})
    found = profile([first, second.cast(pa.schema({"b": pa.string(), "a": pa.string()}))])
    assert [(each.name, each.rows, each.missing) for each in found] == [("a", 3, 1), ("b", 3, 2)]


def test_too_many_columns() -> None:
    check_number(16_384)
    text = "there are 16,385 columns; inspect describes at most 16,384; write the columns of texts and labels to a file"
    with pytest.raises(DataError, match=re.escape(f"{text} of their own")):
        check_number(16_385)


SENTENCES = [f"{WORDS} {n}" for n in range(30)]
CLASSES = [f"k{n % 3}" for n in range(30)]


def _roles(**columns: list[str]) -> dict[str, tuple[str, str]]:
    """The role of each column that has one, and why."""
    found = guess_columns(profile([pa.table({name.replace("_", " "): values for name, values in columns.items()})]))
    return {each.name: (each.role, each.why.rsplit("; ", 1)[1]) for each in found if each.role}


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"body": SENTENCES, "remark": [row * 5 for row in SENTENCES]}, ("body", "the name is that of a text")),
        ({"body": SENTENCES, "remark": [row * 6 for row in SENTENCES]}, ("remark", "it has the longest values")),
        ({"remark": SENTENCES, "other": SENTENCES[::-1]}, ("remark", "it has the longest values")),
        ({"title": SENTENCES, "body": [row + "." for row in SENTENCES]}, ("body", "the name is that of a text")),
        ({"text": CLASSES, "x": CLASSES}, ("text", "the name is that of a text")),
        ({"text": [f"u{n}" for n in range(30)]}, ("text", "the name is that of a text")),
        ({"text": CLASSES, "x": SENTENCES}, ("x", "it has the longest values")),
        ({"x": CLASSES}, None),
        ({"text": [f"{n}.5" for n in range(30)]}, None),
    ],
)  # fmt: skip
def test_the_text(columns: dict[str, list[str]], text: tuple[str, str] | None) -> None:
    found = {why: name for name, (role, why) in _roles(**columns).items() if role == "text"}
    assert found == ({text[1]: text[0]} if text else {})


@pytest.mark.parametrize(
    "name", ["text", "review", "body", "content", "comment", "message", "sentence", "description", "document", "title"]
)
def test_names_of_texts(name: str) -> None:
    assert _roles(x=SENTENCES, **{f"my_{name.upper()}": SENTENCES})[f"my {name.upper()}"][0] == "text"


LABELS = (
    *("label", "labels", "class", "category", "target", "sentiment", "score", "rating", "stars", "topic", "genre"),
    *("genres", "tag", "tags", "intent", "y"),
)


@pytest.mark.parametrize("number", range(len(LABELS)))
def test_names_of_labels_in_their_order(number: int) -> None:
    later = dict.fromkeys(reversed(LABELS[number:]), CLASSES)
    assert _roles(x=["a", "b"] * 15, **later)[LABELS[number]] == ("label", "the name is that of a label")


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"a": CLASSES, "b": ["x", "y"] * 15}, ("b", "of the columns of classes it has the fewest")),
        ({"a": ["true", "false"] * 15, "b": CLASSES}, ("a", "of the columns of classes it has the fewest")),
        ({"a": ["x"] * 30, "b": CLASSES}, ("b", "of the columns of classes it has the fewest")),
        ({"label": ["x"] * 30, "b": CLASSES}, ("b", "of the columns of classes it has the fewest")),
        ({"a": [f"{n}.5" for n in range(30)]}, None),
        ({"score": [f"{n}.5" for n in range(30)], "b": CLASSES}, ("score", "the name is that of a label")),
        ({"a": ["[1]", "[2]"] * 15}, ("a", "of the columns of classes it has the fewest")),
        ({"label": [f"u{n}" for n in range(30)]}, None),
    ],
)
def test_the_label(columns: dict[str, list[str]], label: tuple[str, str] | None) -> None:
    found = {why: name for name, (role, why) in _roles(**columns).items() if role == "label"}
    assert found == ({label[1]: label[0]} if label else {})


@pytest.mark.parametrize(
    "name", ["author", "user", "customer", "group", "patient", "speaker", "account", "session", "thread", "writer"]
)
def test_names_of_groups(name: str) -> None:
    roles = _roles(text=SENTENCES, label=CLASSES, **{name: CLASSES})
    assert roles[name] == ("group", "the name is that of a group, and values repeat")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["a", "b"] * 15, False),
        (CLASSES, True),
        ([f"g{n % 19}" for n in range(25)], True),
        ([f"g{n % 20}" for n in range(25)], False),
    ],
)
def test_values_of_a_group_repeat(values: list[str], found: bool) -> None:
    rows = len(values)
    label = [("x", "y")[n % 2] for n in range(rows)]
    assert ("user" in _roles(text=SENTENCES[:rows], label=label, user=values)) is found
    label = [("x", "y")[n % 2] for n in range(30)]
    assert "user" not in _roles(text=SENTENCES, label=label, user=[WORDS, f"{WORDS} a", f"{WORDS} b"] * 10)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["train", "Test "] * 15, True),
        (["train", "valid", "test"] * 10, True),
        (["train", "x"] * 15, False),
        (["x"] * 30, False),
    ],
)
def test_values_of_a_split(values: list[str], found: bool) -> None:
    roles = _roles(label=values, x=CLASSES)
    assert (roles.get("label") == ("split", "the values are names of splits")) is found
