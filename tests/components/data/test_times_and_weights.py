"""Columns with the roles time and weight: read, split by time, and weights in batches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, ParamsError
from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import Role
from raypath.components.data.splits.assign import FREE, TEST, TRAIN, VALID, assign
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split
from raypath.components.training.batches.token_dataset import load_token_dataset
from tests.components.reading import Read

CSV = "text,label,on,w\na,x,2025-03-01,1\nb,y,2025-01-01T10:00:00+02:00,0.5\nc,x,2025-02-01,0\n"


@pytest.fixture
def dated(tmp_path: Path, make_context: Callable[..., Context]) -> Callable[[list[str]], Dataset]:
    """Read lines of text, label and date."""

    def run(lines: list[str]) -> Dataset:
        (tmp_path / "a.csv").write_text("text,label,on\n" + "\n".join(lines) + "\n")
        ctx = make_context("read")
        made = read.fn(ctx, ReadParams(uri=str(tmp_path / "a.csv"), time="on"))
        return made.model_copy(update={"uri": str(ctx.out)})

    return run


def test_they_are_stored_with_their_kinds(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    data, rows = reading(tmp_path / "a.csv", time="on", weight="w")
    assert [row["weight"] for row in rows] == [1.0, 0.5, 0.0]
    assert rows[1]["time"] == datetime(2025, 1, 1, 8, tzinfo=UTC)
    assert [(each.name, each.kind) for each in data.columns if each.role is Role.TIME] == [("on", "time")]
    assert [(each.name, each.kind) for each in data.columns if each.role is Role.WEIGHT] == [("w", "number")]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"on": "soon"}, "column on is not a date or time in ISO 8601"),
        ({"on": ""}, "column on is empty"),
        ({"w": "-1"}, "column w is negative"),
        ({"w": "much"}, "column w is not a finite number"),
        ({"w": ""}, "column w is empty"),
    ],
)
def test_wrong_values_are_errors_or_dropped(
    tmp_path: Path, reading: Read, format: str, values: dict[str, str], said: str
) -> None:
    import pandas as pd

    good = {"text": "a", "label": "x", "on": "2025-01-01", "w": "1"}
    table = pd.DataFrame([good, {**good, "text": "b", "label": "y"}, {**good, **values}])
    path = tmp_path / f"a.{format}"
    if format == "csv":
        table.to_csv(path, index=False)
    elif format == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    with pytest.raises(DataError, match=f"{said}.* in row 3 "):
        reading(path, time="on", weight="w")
    assert len(reading(path, time="on", weight="w", nulls="drop")[1]) == 2


def test_a_column_has_one_role() -> None:
    with pytest.raises(ParamsError, match="the same column twice"):
        ReadParams().override({"time": "on", "weight": "on"})


def test_the_latest_rows_are_the_test_split(
    dated: Callable[[list[str]], Dataset], make_context: Callable[..., Context]
) -> None:
    days = np.random.default_rng(0).permutation(100)
    lines = [f"text {day},{'xy'[day % 2]},{np.datetime64('2025-01-01') + int(day)}" for day in days]
    ctx = make_context("split", seed=1)
    made = split.fn(ctx, dated(lines), SplitParams(valid=0.2, test=0.1))
    times = {
        name: {row["text"] for row in pq.read_table(ctx.out / part.uri).to_pylist()} for name, part in made.nested()
    }
    assert times["test"] == {f"text {day}" for day in range(90, 100)}
    assert times["valid"] == {f"text {day}" for day in range(70, 90)}
    assert made.train.rows == 70


def test_groups_and_given_splits_stay_whole() -> None:
    times = np.array([1, 9, 2, 3, 4, 5, 6, 7, 8, 10])
    groups = np.array([7, 7, 1, 2, 3, 4, 4, 4, 5, 6])
    free = np.full(10, FREE, np.int8)
    codes = np.zeros(10, np.int64)
    # The first group's last row is from 9: with it both of its rows are tested, besides 10.
    found = assign(codes, free, groups, {VALID: 0.3, TEST: 0.2}, 0, times)
    assert found.tolist() == [TEST, TEST, TRAIN, TRAIN, TRAIN, VALID, VALID, VALID, VALID, TEST]
    given = free.copy()
    given[0] = TEST
    found = assign(codes, given, None, {VALID: 0.2, TEST: 0.2}, 0, times)
    assert np.flatnonzero(found == VALID).tolist() == [1, 9], "the latest of the others"
    assert np.flatnonzero(found == TEST).tolist() == [0]


def test_a_class_that_is_new_in_the_test_split_is_an_error(
    dated: Callable[[list[str]], Dataset], make_context: Callable[..., Context]
) -> None:
    data = dated([f"text {day},{'z' if day > 27 else 'xy'[day % 2]},2025-01-{day:02}" for day in range(1, 31)])
    with pytest.raises(DataError, match=r"train has no row of class z, which .*lower split\.valid and split\.test"):
        split.fn(make_context("split"), data, SplitParams())


@pytest.mark.parametrize("window", [1, 1 << 20], ids=["streamed", "in memory"])
def test_weights_are_in_batches(tmp_path: Path, window: int) -> None:
    import pyarrow as pa

    ids = pa.array([[101] * (n + 1) for n in range(3)], pa.list_(pa.int32()))
    weights = pa.array([0.5, 2.0, 0.0])
    pq.write_table(pa.table({"input_ids": ids, "weight": weights}).slice(0, 2), tmp_path / "00000.parquet")
    pq.write_table(pa.table({"input_ids": ids, "weight": weights}).slice(2), tmp_path / "00001.parquet")
    rows = load_token_dataset(tmp_path, window=window)
    assert rows.batch(np.array([2, 0]), pad=0)["row_weights"].tolist() == [0.0, 0.5]
    assert rows.subset(np.array([1, 2])).batch(np.array([1, 0]), pad=0)["row_weights"].tolist() == [0.0, 2.0]
