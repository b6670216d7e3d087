"""Classes of a column: their type, what is rewritten, and each error in full."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.data.labels.classes import ClassCollector, SetCollector, sort_labels

REGRESSION = (
    "column y looks like a regression target: fractions, or over 1,000 numbers; wanted classes; "
    "set -s read.kind=number to predict numbers, or name a column of classes"
)
MIXED = "column y mixes {} labels; wanted one type; write all as strings"
MANY = "column y has more than 1,000 distinct labels; wanted 2 to 1,000; name the label column with -s read.label="


def _resolved(**labels: list[str]) -> tuple[LabelKind, dict[str, str]]:
    found = ClassCollector("y")
    found.merge(labels)
    return found.resolve()


@pytest.mark.parametrize(
    ("labels", "kind", "changes"),
    [
        ({"text": ["1", "2.0", "-3."]}, LabelKind.INT, {"2.0": "2", "-3.": "-3"}),
        ({"text": ["007", "1"]}, LabelKind.STRING, {}),
        ({"text": ["1e3", "5"]}, LabelKind.STRING, {}),
        ({"text": ["True", "false"]}, LabelKind.BOOL, {"True": "true"}),
        ({"text": ["true", "yes"]}, LabelKind.STRING, {}),
        ({"text": ["1", "a"]}, LabelKind.STRING, {}),
        ({"text": []}, LabelKind.STRING, {}),
        ({}, LabelKind.STRING, {}),
        ({"int": ["1"], "text": ["2.0"]}, LabelKind.INT, {"2.0": "2"}),
        ({"bool": ["true"], "text": ["FALSE"]}, LabelKind.BOOL, {"FALSE": "false"}),
        ({"string": ["a"], "text": ["1"]}, LabelKind.STRING, {}),
    ],
)
def test_types(labels: dict[str, list[str]], kind: LabelKind, changes: dict[str, str]) -> None:
    assert _resolved(**labels) == (kind, changes)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({"text": ["1.5", "2"]}, REGRESSION),
        ({"float": ["1.5"]}, REGRESSION),
        ({"float": ["1.5"], "int": ["2"]}, REGRESSION),
        ({"float": ["1.5"], "string": ["a"]}, MIXED.format("float and string")),
        ({"int": ["1"], "string": ["a"], "bool": ["true"]}, MIXED.format("bool and int and string")),
        ({"int": ["1"], "text": ["a"]}, MIXED.format("int and string")),
        ({"bool": ["true"], "text": ["1"]}, MIXED.format("bool and int")),
        ({"text": [f"c{n}" for n in range(1_001)]}, MANY),
        ({"text": [str(n) for n in range(600)], "int": [str(n) for n in range(401)]}, REGRESSION),
        ({"text": [str(n) for n in range(600)], "string": [f"c{n}" for n in range(401)]}, MANY),
    ],
)
def test_errors(labels: dict[str, list[str]], wanted: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(wanted)}$"):
        _resolved(**labels)


def test_a_thousand_classes_are_collected_by_type() -> None:
    found = ClassCollector("y")
    found.add(pa.table({"label": ["b", "a", "b", None], "kind": ["string", "string", "string", None]}))
    found.add(pa.table({"label": ["1"], "kind": ["int"]}))
    assert found.state() == {"string": ["a", "b"], "int": ["1"]}
    found.merge({"string": [f"c{n}" for n in range(997)]})
    with pytest.raises(DataError, match="more than 1,000"):
        found.add(pa.table({"label": ["d"], "kind": ["string"]}))


def _sets(values: list[Any]) -> pa.Table:
    return pa.table({"label": pa.array(values, pa.list_(pa.string()))})


def test_sets_are_collected() -> None:
    found = SetCollector("y")
    found.add(_sets([["a", "b"], [], ["a"], []]))
    found.add(_sets([]))
    assert found.state() == {"classes": ["a", "b"], "empty": 2}
    other = SetCollector("y")
    other.merge(found.state())
    other.merge({"classes": [f"c{n}" for n in range(998)], "empty": 1})
    assert other.empty == 3
    wanted = (
        "column y has more than 1,000 distinct classes in its sets; wanted 2 to 1,000; name the label column with "
        "-s read.label=, or the separator of classes with -s read.separator="
    )
    with pytest.raises(DataError, match=f"^{re.escape(wanted)}$"):
        other.merge({"classes": ["d"], "empty": 0})
    with pytest.raises(DataError, match="1,000"):
        other.add(_sets([["e"]]))


def test_the_order_of_labels() -> None:
    assert sort_labels({"10", "9", "-1"}, LabelKind.INT) == ("-1", "9", "10")
    assert sort_labels({"10", "9", "a"}, LabelKind.STRING) == ("10", "9", "a")
