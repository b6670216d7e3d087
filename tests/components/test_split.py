"""split: exact shares, whole groups, given parts honoured, and no class or row lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, Dataset, ParamsError
from raypath.components.data.splits.assign import DROPPED, FREE, TEST, TRAIN, VALID, allocate, assign
from raypath.components.data.splits.label_statistics import LabelStatistics, SetMembers
from raypath.components.data.splits.stratify import ensure_classes_in_train
from raypath.components.data.streaming.parquet import GROUP_ROWS, TableWriter
from raypath.components.split import SplitParams, split

Parts = dict[str, list[dict[str, Any]]]
Splitting = Callable[..., Parts]
TEXT = pa.string()
SETS, NUMBERS = pa.list_(TEXT), pa.list_(pa.float64())


@pytest.fixture
def splitting(tmp_path: Path, make_context: Callable[..., Context]) -> Splitting:
    """`splitting(rows, seed=0, label=pa.string(), **params)` -> the rows of each part."""

    def run(rows: list[dict[str, Any]], seed: int = 0, label: Any = TEXT, **fields: Any) -> Parts:
        names = {name: label if name == "label" else TEXT for row in rows for name in row}
        table = pa.Table.from_pylist(rows, pa.schema(names))
        ctx = make_context("split", seed=seed)
        with TableWriter(ctx.scratch, table.schema) as writer:
            writer.write(table)
        data = Dataset(uri=str(ctx.scratch), rows=len(rows), presplit="split" in names)
        made = split.fn(ctx, data, SplitParams(**fields))
        parts = {name: pq.read_table(ctx.out / part.uri).to_pylist() for name, part in made.nested()}
        assert [part.rows for part in (made.train, made.valid, made.test)] == [len(part) for part in parts.values()]
        return parts

    return run


def many(counts: dict[str, int], **more: Any) -> list[dict[str, Any]]:
    """Rows of these classes, one class after another in turn, each text its own."""
    labels = [label for label, n in counts.items() for _ in range(n)]
    np.random.default_rng(1).shuffle(labels)
    return [{"text": f"text {n}", "label": label, **more} for n, label in enumerate(labels)]


def labels(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row["label"] for row in rows)


def test_shares_are_exact_in_every_class(splitting: Splitting) -> None:
    parts = splitting(many({"a": 5000, "b": 1000, "c": 40}), valid=0.1, test=0.2)
    assert labels(parts["test"]) == {"a": 1000, "b": 200, "c": 8}
    assert labels(parts["valid"]) == {"a": 500, "b": 100, "c": 4}
    assert sum(map(len, parts.values())) == 6040


def test_no_row_is_lost_or_moved(splitting: Splitting) -> None:
    rows = many({"a": GROUP_ROWS, "b": GROUP_ROWS + 7})
    parts = splitting(rows)
    place = {row["text"]: n for n, row in enumerate(rows)}
    for part in parts.values():
        order = [place[row["text"]] for row in part]
        assert order == sorted(order)
    assert sorted(row["text"] for part in parts.values() for row in part) == sorted(place)


def test_seeded(splitting: Splitting) -> None:
    rows = many({"a": 60, "b": 40})
    assert splitting(rows, seed=3) == splitting(rows, seed=3)
    assert splitting(rows, seed=3) != splitting(rows, seed=4)


def test_every_class_is_in_every_part_where_it_has_the_rows(splitting: Splitting) -> None:
    parts = splitting(many({"a": 100, "three": 3, "two": 2}))
    assert {name: set(labels(part)) for name, part in parts.items()} == {
        "train": {"a", "three", "two"},
        "valid": {"a", "three"},
        "test": {"a", "three", "two"},
    }


@pytest.mark.parametrize("seed", range(20))
def test_allocation_is_within_one_row_of_the_quota(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(20, 500, size=rng.integers(2, 200))
    number = allocate(counts, 0.137, counts - 1)
    assert number.sum() == int(np.floor(counts.sum() * 0.137 + 0.5))
    assert (np.abs(number - counts * 0.137) < 1).all()


def test_given_parts_stay_and_valid_comes_out_of_train(splitting: Splitting) -> None:
    rows = many({"a": 80, "b": 20}, split="train") + [
        {"text": f"held {n}", "label": "ab"[n % 2], "split": "test"} for n in range(10)
    ]
    parts = splitting(rows, valid=0.2)
    assert sorted(row["text"] for row in parts["test"]) == [f"held {n}" for n in range(10)]
    assert labels(parts["valid"]) == {"a": 16, "b": 4}
    assert set(parts["train"][0]) == {"text", "label"}


def test_given_parts_are_untouched_when_all_three_are_there(splitting: Splitting) -> None:
    rows = [
        {"text": f"{part} {label} {n}", "label": label, "split": part}
        for part in ("train", "valid", "test")
        for label in "ab"
        for n in range(2)
    ]
    parts = splitting(rows, valid=0.4, test=0.4)
    assert {name: {row["text"].split()[0] for row in part} for name, part in parts.items()} == {
        "train": {"train"},
        "valid": {"valid"},
        "test": {"test"},
    }


def test_groups_stay_whole(splitting: Splitting) -> None:
    rows = many({"a": 600, "b": 400})
    for n, row in enumerate(rows):
        row["group"] = f"author {n % 83}" if n % 10 else ""
    parts = splitting(rows, valid=0.1, test=0.2)
    homes: dict[str, set[str]] = {}
    for name, part in parts.items():
        for row in part:
            homes.setdefault(row["group"] or row["text"], set()).add(name)
    assert all(len(home) == 1 for home in homes.values())
    assert abs(len(parts["test"]) - 200) <= 12
    assert abs(len(parts["valid"]) - 100) <= 12
    assert abs(labels(parts["test"])["a"] - 120) <= 12


def test_groups_go_by_lot(splitting: Splitting) -> None:
    rows = [{"text": str(n), "label": "ab"[n % 2], "group": str(n // 2)} for n in range(40)]
    made = [splitting(rows, seed)["test"] for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_rows_of_the_same_text_stay_together_where_groups_are_and_they_have_none(splitting: Splitting) -> None:
    rows = [{"text": str(n % 20), "label": "ab"[n % 2], "group": ""} for n in range(40)]
    rows += [{"text": f"more {n}", "label": "ab"[n % 2], "group": "one"} for n in range(4)]
    texts = [{row["text"] for row in part} for part in splitting(rows, valid=0.2, test=0.2).values()]
    assert all(texts)
    assert sum(map(len, texts)) == 24


@pytest.mark.parametrize("held", ["valid", "test"])
def test_groups_that_cross_given_parts_are_counted(
    splitting: Splitting, caplog: pytest.LogCaptureFixture, held: str
) -> None:
    rows = [{"text": str(n), "label": "ab"[n % 2], "group": str(n // 2), "split": "train"} for n in range(40)]
    crossing = [{**row, "text": f"{row['text']} {held}", "split": held} for row in rows[:6]]
    splitting(rows + crossing, valid=0, test=0)
    assert caplog.messages == ["3 groups are both in train and in a given valid or test split"]
    caplog.clear()
    splitting([{**row, "split": None} for row in rows])
    assert not caplog.messages


def test_three_groups_fill_three_parts() -> None:
    parts = assign(np.array([0, 1] * 30), np.full(60, FREE, np.int8), np.arange(60) // 20, {VALID: 0.1, TEST: 0.1}, 0)
    assert sorted(Counter(parts.tolist()).items()) == [(TRAIN, 20), (VALID, 20), (TEST, 20)]


def test_same_text_in_train_and_test(splitting: Splitting, caplog: pytest.LogCaptureFixture) -> None:
    rows = many({"a": 50, "b": 50}, split="train")
    rows += [{"text": f"text {n}", "label": "a", "split": "test"} for n in range(3)]
    assert len(splitting(rows, valid=0)["train"]) == 100
    assert "3 rows of train have a text that is also in valid or test" in caplog.text
    assert len(splitting(rows, valid=0, duplicates="drop")["train"]) == 97
    assert "text 1" not in caplog.text


@pytest.mark.parametrize("held", ["valid", "test"])
def test_rows_that_valid_or_test_also_has_leave_train(
    splitting: Splitting, caplog: pytest.LogCaptureFixture, held: str
) -> None:
    rows = many({"a": 50, "b": 50}, split="train")
    rows += [{"text": f"text {n}", "label": "a", "split": held} for n in range(3)]
    parts = splitting(rows, duplicates="drop", **{"valid": 0, "test": 0})
    assert {row["text"] for row in parts["train"]} == {f"text {n}" for n in range(3, 100)}
    assert len(parts[held]) == 3
    assert "dropped 3 rows from train" in caplog.text


def test_texts_that_valid_and_test_share_are_nobody_s_fault(
    splitting: Splitting, caplog: pytest.LogCaptureFixture
) -> None:
    rows = many({"a": 50, "b": 50}, split="train")
    rows += [{"text": "the same", "label": "a", "split": part} for part in ("valid", "test")]
    assert [len(part) for part in splitting(rows, duplicates="drop").values()] == [100, 1, 1]
    assert not caplog.records


def test_up_to_a_thousand_classes_and_those_of_just_enough_rows_are_kept(splitting: Splitting) -> None:
    assert len(labels(splitting(many({f"c{n}": 2 for n in range(1000)}))["train"])) == 1000
    parts = splitting(many({"a": 9, "b": 9, "few": 3, "odd": 2}), min_rows=3)
    assert set(labels(parts["train"])) == {"a", "b", "few"}


def test_unlabelled_rows(splitting: Splitting) -> None:
    parts = splitting([{"text": f"{n}"} for n in range(100)])
    assert [len(part) for part in parts.values()] == [80, 10, 10]


def test_rare_classes(splitting: Splitting) -> None:
    rows = many({"a": 50, "b": 50, "odd": 1})
    with pytest.raises(DataError, match=r"class odd has 1 row; .*split.min_rows=2"):
        splitting(rows)
    assert set(labels(splitting(rows, min_rows=2)["train"])) == {"a", "b"}


def of(sets: list[Any], **more: Any) -> list[dict[str, Any]]:
    """Rows with these labels, each text its own."""
    return [{"text": f"text {n}", "label": names, **more} for n, names in enumerate(sets)]


def classes(*parts: list[dict[str, Any]]) -> Counter[str]:
    return Counter(name for part in parts for row in part for name in row["label"])


def test_sets_keep_their_rarest_class_in_proportion(splitting: Splitting) -> None:
    sets = [["big", "mid"]] * 100 + [["big"]] * 500 + [["small", "big"]] * 20 + [[]] * 80 + [["mid", "small"]] * 20
    parts = splitting(of(sets), label=SETS, valid=0.1, test=0.2)
    assert {name: len(part) for name, part in parts.items()} == {"train": 504, "valid": 72, "test": 144}
    assert classes(parts["test"])["small"] == 8
    assert sum(not row["label"] for row in parts["test"]) == 16
    assert sum(row["label"] == ["big", "mid"] for row in parts["valid"]) == 10


KNOT = [["r"], ["r", "c"], ["q"], ["q", "c"], ["s"], ["s", "c"], ["one", "r"], [], []]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("stratify", [True, False])
def test_train_has_every_class_of_the_sets(splitting: Splitting, seed: int, stratify: bool) -> None:
    parts = splitting(of(KNOT), seed, label=SETS, valid=0.3, test=0.4, stratify=stratify)
    assert set(classes(parts["train"])) == {"r", "c", "q", "s", "one"}
    assert sum(map(len, parts.values())) == len(KNOT)


def ensured(sets: list[list[int]], parts: list[int], given: list[int], groups: list[int] | None = None) -> list[int]:
    """The parts after `ensure_classes_in_train`, of rows with these sets of class numbers."""
    rows, codes = (np.array(found) for found in zip(*[(n, c) for n, row in enumerate(sets) for c in row], strict=True))
    none, names = np.zeros(len(sets), np.int32), None if groups is None else np.array(groups, np.uint64)
    found = LabelStatistics(
        [str(c) for c in range(codes.max() + 1)], none, np.array(given), none, names, SetMembers(codes, rows)
    )
    result: list[int] = ensure_classes_in_train(found, np.array(given), np.array(parts)).tolist()
    return result


def test_one_row_is_moved_for_each_class_that_train_lacks() -> None:
    sets, free = [[0, 1], [1], [2], [2], [3]], [FREE] * 5
    # The row that is moved for class 0 brings class 1 along; class 2, after it, still needs one of its own.
    assert ensured(sets, [VALID, TEST, TEST, TEST, TRAIN], free) == [TRAIN, TEST, TRAIN, TEST, TRAIN]
    assert ensured(sets, [VALID, TEST, DROPPED, TRAIN, TRAIN], free) == [TRAIN, TEST, DROPPED, TRAIN, TRAIN]


def test_what_the_data_gave_to_valid_or_test_is_never_moved_to_train() -> None:
    assert ensured([[0], [0], [1]], [VALID, VALID, TRAIN], [VALID, FREE, FREE]) == [VALID, TRAIN, TRAIN]
    assert ensured([[0], [1]], [TEST, TRAIN], [TEST, FREE]) == [TEST, TRAIN]
    parts = ensured([[0], [], [], [1]], [VALID, VALID, TEST, TRAIN], [FREE, FREE, TEST, FREE], [7, 7, 7, 8])
    assert parts == [TRAIN, TRAIN, TEST, TRAIN]


@pytest.mark.parametrize("seed", range(6))
def test_groups_stay_whole_where_train_gets_a_class(splitting: Splitting, seed: int) -> None:
    rows = [{**row, "group": f"g{n // 3}"} for n, row in enumerate(of(KNOT * 2))]
    parts = splitting(rows, seed, label=SETS, valid=0.3, test=0.4)
    homes = [{row["group"] for row in part} for part in parts.values()]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 6
    assert set(classes(parts["train"])) == {"r", "c", "q", "s", "one"}


def test_given_parts_of_sets_stay(splitting: Splitting) -> None:
    train, test = of([["a"], ["b"]] * 5, split="train"), of([["a", "b"]], split="test")
    assert splitting(train + test, label=SETS, valid=0)["test"] == [{"text": "text 0", "label": ["a", "b"]}]
    with pytest.raises(DataError, match="train has no row of class c, which test has"):
        splitting(train + of([["a", "c"]], split="test"), label=SETS, valid=0)


def test_rare_classes_leave_the_sets_and_no_row_is_lost(splitting: Splitting) -> None:
    rows = of([["a"], ["b", "a"]] * 20 + [["a", "odd"], ["odd"]])
    parts = splitting(rows, label=SETS, min_rows=3)
    assert set(classes(*parts.values())) == {"a", "b"}
    kept = {row["text"]: row["label"] for part in parts.values() for row in part}
    assert (len(kept), kept["text 1"], kept["text 40"], kept["text 41"]) == (42, ["b", "a"], ["a"], [])


def test_numbers_are_spread_by_quantiles(splitting: Splitting) -> None:
    values = np.exp(np.random.default_rng(0).normal(0, 3, 1000))
    parts = splitting(of([[value, 0.0] for value in values]), label=NUMBERS, valid=0.1, test=0.2)
    edges = np.quantile(values, np.arange(1, 10) / 10)
    for name, wanted in (("train", 70), ("valid", 10), ("test", 20)):
        bins = np.searchsorted(edges, [row["label"][0] for row in parts[name]])
        assert np.bincount(bins).tolist() == [wanted] * 10


@pytest.mark.parametrize("values", [[5.0] * 40, [float(n) for n in range(40)], [0.0] * 39 + [1e30]])
def test_few_or_equal_numbers_do_not_swell_the_parts(splitting: Splitting, values: list[float]) -> None:
    parts = splitting(of([[value] for value in values], split=None), label=NUMBERS)
    assert [len(part) for part in parts.values()] == [32, 4, 4]


@pytest.mark.parametrize("sets", [[["a"]] * 9, [["a"], []] * 9])
def test_sets_of_one_class(splitting: Splitting, sets: list[list[str]]) -> None:
    with pytest.raises(DataError, match="got 1 class, a; wanted 2 to 1,000"):
        splitting(of(sets), label=SETS)
    with pytest.raises(DataError, match="got 0 classes"):
        splitting(of([[]] * 9), label=SETS)


def test_same_text_in_sets_and_numbers(splitting: Splitting) -> None:
    for label, names in ((SETS, ["a", "b"]), (NUMBERS, [1.0])):
        rows = of([names] * 50, split="train") + of([names] * 3, split="test")
        assert len(splitting(rows, label=label, valid=0, duplicates="drop")["train"]) == 47


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (many({"a": 9}), "got 1 class, a; wanted 2 to 1,000"),
        (many({f"c{n}": 2 for n in range(1001)}), "got 1,001 classes; wanted 2 to 1,000"),
        (many({"a": 9, "b": 9}, split="test"), "no row is left for train"),
        (
            many({"a": 9}, split="train")
            + many({"a": 5, "b": 4}, split="test")
            + many({"a": 5, "b": 4}, split="valid"),
            "train has no row of class b, which valid has",
        ),
    ],
)
def test_what_cannot_be_split(splitting: Splitting, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError) as caught:
        splitting(rows)
    assert said in str(caught.value)
    assert caught.value.fix


def test_params() -> None:
    with pytest.raises(ParamsError, match="leave nothing for train"):
        SplitParams().override({"valid": "0.5", "test": "0.5"})
