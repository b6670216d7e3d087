"""Rare classes, imbalance and sorted rows at their bounds: severity, the whole text, the rows and the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.labels import LabelKind
from raypath.components.inspection.findings import labels
from raypath.components.inspection.report import Severity
from raypath.components.inspection.statistics import Statistics
from tests.components.inspection.made_up import kinds_of, only, statistics

ERROR, WARNING, NOTE = Severity
SET, NUMBER = LabelKind.SET, LabelKind.NUMBER


def _classes(folder: Path, sizes: dict[str, int], test: dict[str, int] | None = None) -> Statistics:
    """Rows of classes, a class after the other. test: rows of each in the test split, its first ones."""
    rows = sum(sizes.values())
    codes = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    splits = np.zeros(rows)
    for n, name in enumerate(sizes):
        splits[np.flatnonzero(codes == n)[: (test or {}).get(name, 0)]] = 3
    return statistics(folder, rows, classes=list(sizes), codes=codes, splits=splits)


@pytest.mark.parametrize(
    ("sizes", "test", "severity", "text", "settings"),
    [
        ({"a": 500, "b": 500, "c": 94}, None, WARNING,
         "1 class has fewer than 10 rows in the test split (c: 9): a metric of 9 rows is uncertain by up to ±33 points",
         {}),
        ({"a": 5000, "b": 500, "c": 94}, None, WARNING,
         "1 class has fewer than 10 rows in the test split (c: 9): a metric of 9 rows is uncertain by up to ±33 points",
         {"split.min_rows": 100}),
        ({"a": 5000, "b": 94, "c": 14}, None, WARNING,
         "2 classes have fewer than 10 rows in the test split (c: 1, b: 9): "
         "a metric of 1 row is uncertain by up to ±98 points", {}),
        ({"a": 5000, "b": 500, "c": 1}, None, ERROR,
         "1 class has fewer than 10 rows in the test split (c: 0): a metric of 1 row is uncertain by up to ±98 points",
         {"split.min_rows": 100}),
        ({"a": 500, "b": 94, "c": 1}, None, ERROR,
         "2 classes have fewer than 10 rows in the test split (c: 0, b: 9): "
         "a metric of 1 row is uncertain by up to ±98 points", {"split.min_rows": 2}),
        ({"a": 500, "b": 500, "c": 50}, {"a": 50, "b": 10, "c": 4}, WARNING,
         "1 class has fewer than 10 rows in the test split (c: 4): a metric of 4 rows is uncertain by up to ±49 points",
         {}),
        ({"a": 5000, **{name: 20 + n for n, name in enumerate("bcdef")}}, None, WARNING,
         "5 classes have fewer than 10 rows in the test split (b: 2, c: 2, d: 2, e: 2, f: 2): "
         "a metric of 2 rows is uncertain by up to ±69 points", {}),
        ({"a": 5000, **{name: 20 + n for n, name in enumerate("bcdefg")}}, None, WARNING,
         "6 classes have fewer than 10 rows in the test split (b: 2, c: 2, d: 2, e: 2, f: 2, ...): "
         "a metric of 2 rows is uncertain by up to ±69 points", {}),
    ],
)  # fmt: skip
def test_rare_classes(
    tmp_path: Path,
    sizes: dict[str, int],
    test: dict[str, int] | None,
    severity: Severity,
    text: str,
    settings: dict[str, Any],
) -> None:
    found = labels.rare_classes(_classes(tmp_path, sizes, test), 10, 0.1)
    made = only(found)
    rare = {part.split(":")[0] for part in text.split("(")[1].split(")")[0].split(", ")} - {"..."}
    assert made[:4] == (severity, len(sizes) - sum(name not in {*rare, "g"} for name in sizes), text, settings)
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    assert made[4] == [
        n for name in sizes if name in {*rare, "g"} for n in range(starts[name], starts[name] + sizes[name])
    ]
    assert kinds_of(found) == ["rare_classes"]


def test_a_model_needs_two_classes_and_has_at_most_a_thousand(tmp_path: Path) -> None:
    """`split` would end the run."""
    assert labels.class_number(_classes(tmp_path, {"a": 5, "b": 5})) == []
    assert labels.class_number(_classes(tmp_path, {f"c{n}": 1 for n in range(1000)})) == []
    severity, count, text, _, rows = only(labels.class_number(_classes(tmp_path, {"a": 5})))
    assert (severity, count, rows) == (ERROR, 1, [])
    assert text.startswith("all rows with a label have the class a: a model needs at least two classes, or another")
    severity, count, text, *_ = only(labels.class_number(_classes(tmp_path, {f"c{n}": 1 for n in range(1001)})))
    assert (severity, count) == (ERROR, 1001)
    assert text.startswith("there are 1,001 classes, and a model has at most 1,000: merge some")
    assert "class_number" in kinds_of(labels.labels(_classes(tmp_path, {"a": 500}), 10, 0.1))


def test_no_class_is_rare_from_ten_rows_of_the_test_split_on(tmp_path: Path) -> None:
    assert labels.rare_classes(_classes(tmp_path, {"a": 100, "b": 95}), 10, 0.1) == []
    assert labels.rare_classes(_classes(tmp_path, {"a": 100, "b": 0}), 10, 0.1) == [], "b has no rows at all"
    assert labels.rare_classes(_classes(tmp_path, {"a": 50, "b": 50}, {"a": 10, "b": 10}), 10, 0.1) == []
    [(made, rows)] = labels.rare_classes(_classes(tmp_path, {"a": 9, "b": 9}), 10, 0.0)
    assert (made.count, made.settings, len(rows)) == (2, {"split.min_rows": 2}, 18)


def test_rare_classes_of_sets_have_no_rows(tmp_path: Path) -> None:
    sets, codes = [("a",), ("a", "b"), ()], [0] * 500 + [1] * 10 + [2] * 5
    found = statistics(tmp_path, 515, SET, sets=sets, codes=codes)
    made = labels.labels(found, 10, 0.1)
    assert only(made) == (
        WARNING, 1, "1 class has fewer than 10 rows in the test split (b: 1): "
        "a metric of 1 row is uncertain by up to ±98 points", {}, [],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "times"),
    [
        ({"a": 400, "b": 20}, 20),
        ({"a": 399, "b": 20}, 0),
        ({"a": 400, "b": 19}, 0),
        ({"a": 50_000, "b": 20, "c": 19}, 2500),
    ],
)
def test_imbalance(tmp_path: Path, sizes: dict[str, int], times: int) -> None:
    found = labels.imbalance(_classes(tmp_path, sizes))
    if not times:
        assert found == []
        return
    text = f"the largest class has {times:,} times the rows of the smallest"
    assert only(found) == (NOTE, 2, text, {"finetune.objective.class_weights": "balanced"}, [])
    assert kinds_of(found) == ["imbalance"]


@pytest.mark.parametrize(("given", "severity"), [(False, NOTE), (True, WARNING)])
def test_sorted_rows(tmp_path: Path, given: bool, severity: Severity) -> None:
    found = statistics(tmp_path, 400, codes=[0] * 200 + [1] * 200, splits={0: 1} if given else None)
    text = (
        "the rows are sorted by label, or nearly so: 100% of neighbours have the same one, and 50% would in random "
        "order; splits are drawn at random, unless a column or file gives them"
    )
    assert only(labels.labels(found, 1, 0.1)) == (severity, 400, text, {}, [])
    numbers = statistics(tmp_path, 400, NUMBER, classes=(), codes=[-1] * 400, numbers=np.arange(400.0))
    assert only(labels.labels(numbers, 1, 0.1)) == (NOTE, 400, text, {}, [])


@pytest.mark.parametrize(
    ("codes", "agreement"),
    [
        ([0] * 15 + [1] * 15, (28 / 29, 0.5, 0.5 / 29**0.5)),
        ([0] * 15 + [1] * 14, (0.0, 0.0, 0.0)),
        ([0] * 15 + [1] * 15 + [-1] * 3, (28 / 29, 0.5, 0.5 / 29**0.5)),
        ([0, 0, 1] * 10, (10 / 29, 5 / 9, (5 / 9 * 4 / 9 / 29) ** 0.5)),
    ],
)
def test_agreement_of_neighbours(tmp_path: Path, codes: list[int], agreement: tuple[float, float, float]) -> None:
    found = statistics(tmp_path, len(codes), codes=codes)
    assert labels._neighbours(found) == pytest.approx(agreement)
    assert labels.position(found) == []


def test_rows_are_sorted_where_the_agreement_is_large_and_certain(tmp_path: Path) -> None:
    def sorted_rows(rows: int, every: int) -> bool:
        """Blocks of `every` rows of a class in turn."""
        codes = np.arange(rows) // every % 2
        return bool(labels.position(statistics(tmp_path, rows, codes=codes)))

    assert sorted_rows(300, 50)
    assert not sorted_rows(60, 30), "too few rows to be certain"
    assert not sorted_rows(4_000, 3), "0.67 is less than 0.2 above 0.5"
    assert sorted_rows(4_000, 4)


def test_class_counts(tmp_path: Path) -> None:
    found = _classes(tmp_path, {"a": 3, "b": 5, "c": 5, "d": 0}, {"a": 1, "b": 2})
    counts = [(each.label, each.rows, each.splits) for each in labels.class_counts(found)]
    assert counts == [("b", 5, {"test": 2}), ("c", 5, {"test": 0}), ("a", 3, {"test": 1})]
    many = _classes(tmp_path, {f"c{n}": 1 for n in range(1_001)})
    assert [each.label for each in labels.class_counts(many)] == [f"c{n}" for n in range(1_000)]
