"""Files of very many columns: time grows with their number, and not with its square."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.errors import DataError
from raypath.components.data.sources.files import find
from raypath.components.inspection.columns import guess
from raypath.components.inspection.columns.guess import MAX_COLUMNS, Profile, guess_columns, profile
from raypath.components.inspection.columns.raw import raw_tables
from tests.security.test_arrow_files import write

Row = dict[str, str]


def csv(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(",".join(values) + "\n" for values in (rows[0].keys(), *(row.values() for row in rows))))
    return path


def jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def arrow(path: Path, rows: list[Row]) -> Path:
    return write(path, pa.Table.from_pylist(rows))


def profiles(path: Path) -> list[Any]:
    return profile(table for file in find(str(path), logging.getLogger("test")) for table in raw_tables(file))


def rows_of(columns: int, rows: int) -> list[Row]:
    return [{f"c{n}": f"{n} {row}" for n in range(columns)} for row in range(rows)]


@pytest.mark.parametrize("make", [csv, jsonl, parquet, arrow])
def test_values_of_many_columns(make: Callable[[Path, list[Row]], Path], tmp_path: Path) -> None:
    found = profiles(make(tmp_path / f"a.{make.__name__}", rows_of(300, 20)))
    assert [each.name for each in found] == [f"c{n}" for n in range(300)]
    assert {(each.rows, each.missing, each.distinct) for each in found} == {(20, 0, 20)}
    assert len(guess_columns(found)) == 300


@pytest.mark.parametrize("make", [csv, jsonl, parquet, arrow])
def test_columns(make: Callable[[Path, list[Row]], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 columns took 14 s in CSV, 4,000 took 4 s in Parquet and 3 s in JSON.

    The values of a column take the same time whatever is beside it, most of what linear work there is: left out.
    """

    def add(self: Profile, column: Any, rows: int) -> None:
        self.rows += rows
        self.missing += rows if column is None else column.null_count

    monkeypatch.setattr(Profile, "add", add)
    path = make(tmp_path / f"a.{make.__name__}", rows_of(8_000, 2))
    began = time.process_time()
    found = profiles(path)
    assert [each.name for each in found] == [f"c{n}" for n in range(8_000)]
    assert {(each.rows, each.missing) for each in found} == {(2, 0)}
    assert len(guess_columns(found)) == 8_000
    assert time.process_time() - began < 3


@pytest.mark.parametrize("make", [csv, jsonl])
def test_too_many_columns(make: Callable[[Path, list[Row]], Path], tmp_path: Path) -> None:
    path = make(tmp_path / f"a.{make.__name__}", [{f"c{n}": "x" for n in range(100_000)}])
    began = time.process_time()
    with pytest.raises(DataError, match=f"there are 100,000 columns; inspect describes at most {MAX_COLUMNS:,}; write"):
        profiles(path)
    assert time.process_time() - began < 5


def test_too_many_columns_in_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guess, "MAX_COLUMNS", 100)
    for part in range(3):
        csv(tmp_path / f"{part}.csv", [{f"c{part}-{n}": "x" for n in range(50)}])
        if part == 1:
            assert len(profiles(tmp_path)) == 100
    with pytest.raises(DataError, match="there are 150 columns; inspect describes at most 100;"):
        profiles(tmp_path)


def test_a_key_that_is_given_twice_among_many(tmp_path: Path) -> None:
    keys = ", ".join(f'"c{n}": "x"' for n in range(100))
    (tmp_path / "a.jsonl").write_text(f'{{{keys}}}\n{{{keys}, "c7": "y"}}\n')
    with pytest.raises(DataError, match=r"a\.jsonl row 2 has the key c7 twice"):
        profiles(tmp_path / "a.jsonl")
