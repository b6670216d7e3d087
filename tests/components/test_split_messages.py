"""split: what it logs, and what cannot be split, each sentence in full."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypath.components import Context, DataError, Dataset, ParamsError, Splits
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.split import SplitParams, split

MakeContext = Callable[..., Context]
TEXT = pa.string()
Split = Callable[..., Splits]


@pytest.fixture
def run(make_context: MakeContext, caplog: pytest.LogCaptureFixture) -> Split:
    """`run(text=[...], label=[...], params={...})` splits rows of these columns."""
    caplog.set_level(logging.INFO)

    def run(params: dict[str, Any] | None = None, **columns: Any) -> Splits:
        table = pa.table(columns)
        ctx = make_context("split")
        with TableWriter(ctx.scratch, table.schema) as writer:
            writer.write(table)
        return split.fn(ctx, Dataset(uri=str(ctx.scratch), rows=len(table)), SplitParams(**(params or {})))

    return run


def _texts(rows: int) -> list[str]:
    return [f"text {n}" for n in range(rows)]


def test_defaults() -> None:
    assert SplitParams().model_dump() == {
        "valid": 0.1, "test": 0.1, "stratify": True, "min_rows": 0, "duplicates": "keep",
    }  # fmt: skip
    with pytest.raises(ParamsError, match="valid and test together leave nothing for train"):
        SplitParams().override({"valid": 0.5, "test": 0.5})
    SplitParams().override({"valid": 0.5, "test": 0.49})


def test_the_numbers_of_rows_are_logged(run: Split, caplog: pytest.LogCaptureFixture) -> None:
    made = run(text=_texts(2_000), label=["a", "b"] * 1_000)
    assert caplog.messages == ["train 1,600, valid 200, test 200 rows"]
    assert [(data.uri, data.digest, data.rows) for _, data in made.nested()] == [
        ("train", "", 1_600), ("valid", "", 200), ("test", "", 200),
    ]  # fmt: skip


def test_the_last_time_of_each_split_is_logged(run: Split, caplog: pytest.LogCaptureFixture) -> None:
    minute = 60_000_000
    times = pa.array([n * 1_441 * minute for n in range(10)], pa.timestamp("us", tz="UTC"))
    run({"valid": 0.2, "test": 0.0}, text=_texts(10), label=["a", "b"] * 5, time=times)
    assert caplog.messages == [
        "train 8, valid 2, test 0 rows",
        "the last row of train is from 1970-01-08 00:07",
        "the last row of valid is from 1970-01-10 00:09",
    ]


@pytest.mark.parametrize(
    ("rare", "wanted"),
    [(["c"], "dropped 1 class with fewer than 2 rows"), (["c", "d"], "dropped 2 classes with fewer than 2 rows")],
)
def test_rare_classes_are_dropped(run: Split, caplog: pytest.LogCaptureFixture, rare: list[str], wanted: str) -> None:
    made = run({"min_rows": 2}, text=_texts(20 + len(rare)), label=["a", "b"] * 10 + rare)
    assert caplog.messages[0] == wanted
    assert sum(data.rows for _, data in made.nested()) == 20


@pytest.mark.parametrize(
    ("count", "kept", "dropped"),
    [
        (1, "1 row of train has a text that is also in valid or test, which inflates the metrics; "
         "-s split.duplicates=drop drops it", "dropped 1 row from train: the same text is in valid or test"),
        (2, "2 rows of train have a text that is also in valid or test, which inflates the metrics; "
         "-s split.duplicates=drop drops them", "dropped 2 rows from train: the same text is in valid or test"),
    ],
)  # fmt: skip
def test_leaks(run: Split, caplog: pytest.LogCaptureFixture, count: int, kept: str, dropped: str) -> None:
    texts = _texts(16) + ["text 0", "text 1"][:count] + ["x", "y"][count:] + ["z", "u"]
    columns = {"text": texts, "label": ["a", "b"] * 10, "split": ["train"] * 16 + ["valid"] * 2 + ["test"] * 2}
    run(**columns)
    run({"duplicates": "drop"}, **columns)
    assert caplog.messages == [
        kept, "train 16, valid 2, test 2 rows", dropped, f"train {16 - count}, valid 2, test 2 rows",
    ]  # fmt: skip


@pytest.mark.parametrize(("crossing", "text"), [(1, "1 group is"), (2, "2 groups are")])
def test_groups_that_cross(run: Split, caplog: pytest.LogCaptureFixture, crossing: int, text: str) -> None:
    groups = ["g", "h"] * 4 + ["g", "h" if crossing == 2 else "i", "k", "k"]
    run(text=_texts(12), label=["a", "b"] * 6, group=groups, split=["train"] * 8 + ["valid"] * 2 + ["test"] * 2)
    assert caplog.messages[0] == f"{text} both in train and in a given valid or test split"


NAME = "name the label column with -s read.label=, or lower split.min_rows"
MERGE = "merge it into another class, or drop it with -s split.min_rows=2"
LACKS = "keep split.stratify=true, move rows of the class to train, or remove it"
ERRORS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "one class": ({}, {"label": ["a"] * 9}, f"got 1 class, a; wanted 2 to 1,000; {NAME}"),
    "one class is left": ({"min_rows": 3}, {"label": ["a"] * 7 + ["b"] * 2},
                          f"got 1 class, a; wanted 2 to 1,000; {NAME}"),
    "none is left": ({"min_rows": 99}, {"label": ["a", "b"] * 4}, f"got 0 classes; wanted 2 to 1,000; {NAME}"),
    "a lone row": ({}, {"label": ["a"] * 8 + ["b"]}, f"class b has 1 row; wanted at least 2 per class; {MERGE}"),
    "three lone rows": ({}, {"label": list("aaaadcb")},
                        f"class b, c, d has 1 row; wanted at least 2 per class; {MERGE}"),
    "five lone rows": ({}, {"label": list("aaaafedcb")},
                       f"class b, c, d and 2 others has 1 row; wanted at least 2 per class; {MERGE}"),
    "no train": ({}, {"label": list("abab"), "split": ["test"] * 4},
                 "no row is left for train; lower split.valid and split.test, or correct the given splits"),
    "a class of valid": ({}, {"label": list("aabb"), "split": ["train", "train", "valid", "valid"]},
                         f"train has no row of class b, which valid has; {LACKS}"),
    "classes of test": ({}, {"label": list("aabbccddeeffgg"), "split": ["train"] * 2 + ["valid"] * 0 + ["test"] * 12},
                        f"train has no row of class b, c, d, e, f, which test has; {LACKS}"),
    "a late class": ({}, {"label": list("aaaaaaaabb"), "time": pa.array(range(10), pa.timestamp("us", tz="UTC"))},
                     "train has no row of class b, which valid has; "
                     "lower split.valid and split.test, or remove the class"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_split(run: Split, case: str) -> None:
    params, columns, wanted = ERRORS[case]
    with pytest.raises(DataError) as caught:
        run(params, text=_texts(len(columns["label"])), **columns)
    assert str(caught.value) == wanted


def test_progress_is_reported_to_the_end(make_context: MakeContext, tmp_path: Path) -> None:
    ctx = make_context("split", progress=tmp_path / "progress.json")
    table = pa.table({"text": _texts(20), "label": ["a", "b"] * 10})
    with TableWriter(ctx.scratch, table.schema) as writer:
        writer.write(table)
    split.fn(ctx, Dataset(uri=str(ctx.scratch), rows=20), SplitParams())
    assert '"done": 40, "total": 40, "message": "40 rows"' in (tmp_path / "progress.json").read_text(), "two passes"
