"""Assignment of rows to splits on small arrays: exact numbers, times, groups, strata, and rows that overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.data.splits.assign import DROPPED, FREE, SPLITS, TEST, TRAIN, VALID, allocate, assign
from raypath.components.data.splits.label_statistics import LabelStatistics, SetMembers, contains, split_mask
from raypath.components.data.splits.overlap import drop_overlap
from raypath.components.data.splits.stratify import ensure_classes_in_train, movable, strata

TENTHS = {VALID: 0.1, TEST: 0.1}


def _counts(splits: Array) -> tuple[int, int, int]:
    return int((splits == TRAIN).sum()), int((splits == VALID).sum()), int((splits == TEST).sum())


def _free(rows: int) -> Array:
    return np.full(rows, FREE, np.int8)


@pytest.mark.parametrize(
    ("counts", "share", "most", "wanted"),
    [
        ([100, 50], 0.1, [99, 49], [10, 5]),
        ([15, 15], 0.1, [14, 14], [2, 1]),
        ([14, 16], 0.1, [13, 15], [1, 2]),
        ([3, 3, 94], 0.1, [2, 2, 93], [1, 1, 9]),
        ([1, 1, 1, 97], 0.1, [0, 0, 0, 96], [0, 0, 0, 10]),
        ([2] * 10, 0.1, [1] * 10, [1] * 10),
        ([0, 10], 0.5, [-1, 9], [0, 5]),
        ([10], 1.0, [4], [4]),
        ([25], 0.1, [24], [3]),
        ([10, 10], 0.3, [9, 9], [3, 3]),
    ],
)
def test_rows_of_each_class(counts: list[int], share: float, most: list[int], wanted: list[int]) -> None:
    assert allocate(np.array(counts), share, np.array(most)).tolist() == wanted


@pytest.mark.parametrize(
    ("counts", "shares", "wanted"),
    [
        ([100, 100], TENTHS, (160, 20, 20)),
        ([100, 100], {VALID: 0.0, TEST: 0.1}, (180, 0, 20)),
        ([3], TENTHS, (1, 1, 1)),
        ([2], TENTHS, (1, 0, 1)),
        ([1], TENTHS, (1, 0, 0)),
        ([3, 3, 3], TENTHS, (3, 3, 3)),
    ],
)
def test_classes_keep_a_row_in_train(counts: list[int], shares: dict[int, float], wanted: tuple[int, int, int]) -> None:
    codes = np.repeat(np.arange(len(counts)), counts)
    assert _counts(assign(codes, _free(len(codes)), None, shares, 0)) == wanted


def test_given_rows_stay_and_their_split_gets_no_others() -> None:
    given = _free(100)
    given[:5], given[5:10], given[10:20] = TEST, DROPPED, TRAIN
    splits = assign(np.zeros(100, int), given, None, TENTHS, 0)
    assert (splits[:5] == TEST).all()
    assert (splits[5:10] == DROPPED).all()
    assert _counts(splits) == (81, 9, 5), "a tenth of the 90 rows that are free or of train"
    assert (given[20:] == FREE).all(), "the given codes are not changed"
    every = np.full(9, DROPPED, np.int8)
    assert (assign(np.zeros(9, int), every, None, TENTHS, 0) == DROPPED).all()
    times, groups = np.arange(9), np.arange(9)
    assert (assign(np.zeros(9, int), every, groups, TENTHS, 0, times) == DROPPED).all()
    full = np.array([TRAIN, VALID, TEST, FREE], np.int8)
    for other in (None, groups[:4]):
        assert assign(np.zeros(4, int), full, other, TENTHS, 0, times[:4]).tolist() == [TRAIN, VALID, TEST, TRAIN]
    assert SPLITS == {TRAIN: "train", VALID: "valid", TEST: "test"}


def test_the_seed_decides() -> None:
    codes = np.arange(200) % 2
    groups = np.arange(200) // 2
    for others in (None, groups):
        one, again, other = (assign(codes, _free(200), others, TENTHS, seed) for seed in (0, 0, 1))
        assert (one == again).all()
        assert (one != other).any()


@pytest.mark.parametrize(
    ("rows", "shares", "wanted"),
    [
        (20, TENTHS, [TRAIN] * 16 + [VALID] * 2 + [TEST] * 2),
        (20, {VALID: 0.1}, [TRAIN] * 18 + [VALID] * 2),
        (4, TENTHS, [TRAIN] * 2 + [VALID, TEST]),
        (1, TENTHS, [TEST]),
        (10, {VALID: 0.05, TEST: 0.24}, [TRAIN] * 7 + [VALID] + [TEST] * 2),
    ],
)
def test_the_latest_rows_are_held_out(rows: int, shares: dict[int, float], wanted: list[int]) -> None:
    times = np.arange(rows)
    assert assign(np.zeros(rows, int), _free(rows), None, shares, 0, times).tolist() == wanted
    assert assign(np.zeros(rows, int), _free(rows), None, shares, 0, times[::-1]).tolist() == wanted[::-1]


def test_a_group_has_the_time_of_its_last_row() -> None:
    times = np.array([0, 9, 1, 2, 3, 4, 5, 6, 7, 8])
    groups = np.array([5, 5, 1, 1, 2, 2, 3, 3, 4, 4])
    splits = assign(np.zeros(10, int), _free(10), groups, {VALID: 0.2, TEST: 0.2}, 0, times)
    assert splits.tolist() == [TEST, TEST, TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, VALID, VALID]
    # A cut within a group moves to its first row, so that all of it is held out.
    splits = assign(np.zeros(10, int), _free(10), groups, {TEST: 0.3}, 0, times)
    assert splits.tolist() == [TEST, TEST, TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, TEST, TEST]


def test_groups_fill_the_splits_by_their_classes() -> None:
    """Ten groups of ten rows: five with the class 0, five with the class 1."""
    groups, codes = np.repeat(np.arange(10), 10), np.repeat(np.arange(10) % 2, 10)
    for seed in range(5):
        splits = assign(codes, _free(100), groups, {VALID: 0.2, TEST: 0.2}, seed)
        assert _counts(splits) == (60, 20, 20)
        assert all(len(set(splits[groups == group])) == 1 for group in range(10))
        assert [np.bincount(codes[splits == split]).tolist() for split in (VALID, TEST)] == [[10, 10]] * 2
    few = assign(np.zeros(30, int), _free(30), np.repeat([0, 1, 2], 10), {VALID: 0.01, TEST: 0.01}, 0)
    assert _counts(few) == (10, 10, 10), "the last groups fill the empty splits"


def _statistics(rows: int, **fields: Any) -> LabelStatistics:
    zeros = np.zeros(rows, np.int32)
    given: dict[str, Any] = {"classes": [], "codes": zeros, "given": _free(rows), "texts": zeros, "groups": None}
    return LabelStatistics(**(given | fields))


def test_strata_of_classes_and_numbers() -> None:
    codes = np.array([1, 0, 2])
    assert strata(_statistics(3, codes=codes), _free(3), TENTHS) is codes
    numbers = np.arange(100.0)[::-1]
    bins = strata(_statistics(100, numbers=numbers), _free(100), TENTHS)
    assert bins.tolist() == [9 - n // 10 for n in range(100)]
    assert strata(_statistics(30, numbers=np.arange(30.0)), _free(30), TENTHS).max() == 2, "three bins of ten rows"
    assert strata(_statistics(30, numbers=np.arange(30.0)), _free(30), {VALID: 0.0, TEST: 0.0}).max() == 9
    assert strata(_statistics(5, numbers=np.arange(5.0)), _free(5), TENTHS).tolist() == [0] * 5
    given = np.array([TEST, FREE, DROPPED, TRAIN], np.int8)
    assert movable(given).tolist() == [False, True, False, True]
    assert strata(_statistics(4, numbers=np.array([9.0, 1, 5, 2])), given, {TEST: 0.5}).tolist() == [0, 0, 0, 0]
    assert strata(_statistics(0, numbers=np.zeros(0)), _free(0), TENTHS).tolist() == []


MEMBERS = SetMembers(np.array([0, 1, 0, 2, 0], np.int32), np.array([0, 0, 1, 2, 3]))
"""Rows {a, b}, {a}, {c}, {a} and one without a class."""


def test_strata_of_sets_are_those_of_the_rarest_class() -> None:
    found = _statistics(5, classes=["a", "b", "c"], members=MEMBERS)
    assert found.counts().tolist() == [3, 1, 1]
    assert strata(found, _free(5), TENTHS).tolist() == [0, 2, 1, 2, 3]
    assert found.has_classes
    assert found.present(np.array([True, False, True, False, True])) == {0, 1, 2}
    fewer = found.without_classes(np.array([False, True, False]))
    assert (fewer.removed, fewer.counts().tolist()) == (frozenset({"b"}), [3, 0, 1])
    assert fewer.members is not None
    assert fewer.members.rows.tolist() == [0, 1, 2, 3]
    assert not _statistics(2).has_classes
    assert _statistics(2, classes=["a"]).has_classes
    assert _statistics(3, classes=["a", "b"], codes=np.array([1, 1, 0])).present(np.array([1, 1, 0], bool)) == {1}


def test_train_gets_a_row_of_each_class() -> None:
    found = _statistics(5, classes=["a", "b", "c"], members=MEMBERS)
    splits = np.array([TEST, TRAIN, VALID, TRAIN, TRAIN], np.int8)
    moved = ensure_classes_in_train(found, _free(5), splits)
    assert moved.tolist() == [TRAIN, TRAIN, TRAIN, TRAIN, TRAIN]
    assert splits[0] == TEST, "the splits that were given are not changed"
    given = np.array([TEST, FREE, FREE, FREE, FREE], np.int8)
    assert ensure_classes_in_train(found, given, splits).tolist() == [TEST, TRAIN, TRAIN, TRAIN, TRAIN]
    grouped = _statistics(5, classes=["a", "b", "c"], members=MEMBERS, groups=np.array([7, 1, 8, 7, 8]))
    splits = np.array([TEST, TRAIN, VALID, TEST, VALID], np.int8)
    assert ensure_classes_in_train(grouped, _free(5), splits).tolist() == [TRAIN] * 5
    plain = _statistics(2, classes=["a"])
    assert ensure_classes_in_train(plain, _free(2), splits) is splits


def test_values_that_are_known() -> None:
    assert contains(np.array([5, 1, 5]), np.array([0, 1, 5, 9])).tolist() == [False, True, True, False]
    assert contains(np.array([], int), np.array([0, 1])).tolist() == [False, False]
    assert split_mask(np.array([0, 2, 0], np.int8), 2).to_pylist() == [False, True, False]


def test_rows_that_a_held_out_split_also_has_are_dropped(tmp_path: Path) -> None:
    def made(name: str, rows: list[list[int]]) -> Dataset:
        (tmp_path / name).mkdir()
        table = pa.table({"input_ids": pa.array(rows, pa.list_(pa.int32())), "text": ["x"] * len(rows)})
        pq.write_table(table, tmp_path / name / "00000.parquet")
        return Dataset(uri=str(tmp_path / name), rows=len(rows), source="a")

    train = made("train", [[1, 2], [3], [1], [], [3, 3]])
    kept = drop_overlap(train, (made("valid", [[3], [2, 1]]), made("test", [[]])), tmp_path / "out" / "new")
    assert (kept.uri, kept.rows, kept.source) == (str(tmp_path / "out" / "new"), 3, "a")
    table = pq.read_table(tmp_path / "out" / "new")
    assert (table.column_names, table["input_ids"].to_pylist()) == (["input_ids"], [[1, 2], [1], [3, 3]])
    assert [path.name for path in (tmp_path / "out" / "new").iterdir()] == ["part-0.parquet"]
    assert drop_overlap(train, (made("other", [[9]]),), tmp_path / "none") is train
