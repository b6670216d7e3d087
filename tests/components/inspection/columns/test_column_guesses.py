"""Kinds and roles of columns, guessed from files of every format."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from raypath.components.data.sources.files import DataFile, format_of
from raypath.components.inspection.columns.guess import Guess, guess_columns, profile
from raypath.components.inspection.columns.raw import raw_tables

ROWS = 60
TABLE = pa.table(
    {
        "nr": list(range(ROWS)),
        "title": [f"Offer {n} of the week" for n in range(ROWS)],
        "body": [f"This is text {n}, with a number of words that tell a story about {n * 7}." for n in range(ROWS)],
        "stars": [n % 5 + 1 for n in range(ROWS)],
        "author": [f"a{n % 11}" for n in range(ROWS)],
        "price": [n * 1.37 + 0.5 for n in range(ROWS)],
        "seen": [f"2026-11-{n % 28 + 1:02d} 10:00" for n in range(ROWS)],
        "paid": [n % 3 == 0 for n in range(ROWS)],
        "tags": [f"a|b{n % 4}" if n % 2 else f"c{n % 3}|a" for n in range(ROWS)],
        "part": [("train", "test")[n % 10 == 0] for n in range(ROWS)],
        "cost": [f"{n * 137 // 100},{n * 137 % 100:02d}" if n % 3 else str(n) for n in range(ROWS)],
        "uuid": [f"x-{n:08x}" for n in range(ROWS)],
        "nothing": pa.nulls(ROWS, pa.string()),
    }
)
KINDS = {
    "nr": "id",
    "title": "text",
    "body": "text",
    "stars": "category",
    "author": "category",
    "price": "number",
    "seen": "time",
    "paid": "boolean",
    "tags": "set",
    "part": "category",
    "cost": "number",
    "uuid": "id",
    "nothing": "empty",
}
ROLES = {"body": "text", "stars": "label", "author": "group", "part": "split"}


def _guesses(path: Path) -> dict[str, Guess]:
    return {guess.name: guess for guess in guess_columns(profile(raw_tables(DataFile(path, format_of(path)))))}


@pytest.fixture(params=["data.csv", "data.jsonl", "data.parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path: Path = tmp_path / request.param
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(TABLE, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in TABLE.to_pylist()), encoding="utf-8")
    else:
        pq.write_table(TABLE, path)
    return path


def test_kinds_and_roles_are_the_same_in_every_format(path: Path) -> None:
    guesses = _guesses(path)
    assert {name: guess.kind for name, guess in guesses.items()} == KINDS
    assert {name: guess.role for name, guess in guesses.items() if guess.role} == ROLES
    assert all(guess.why for guess in guesses.values())


def test_lists_are_sets_and_missing_values_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["one two", "", None, "three"], "y": [["a"], ["b", "c"], [], ["a"]]})
    pq.write_table(table, path)
    columns = profile(raw_tables(DataFile(path, "parquet")))
    assert [(each.name, each.rows, each.missing) for each in columns] == [("text", 4, 2), ("y", 4, 0)]
    assert [(guess.kind, guess.role) for guess in guess_columns(columns)][1] == ("set", "label")


def test_a_column_that_one_file_lacks_is_missing_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na b\nc d\n")
    (tmp_path / "b.csv").write_text("text,label\ne f,x\n")
    files = [DataFile(tmp_path / name, "csv") for name in ("a.csv", "b.csv")]
    columns = profile(table for file in files for table in raw_tables(file))
    assert [(each.name, each.rows, each.missing) for each in columns] == [("text", 3, 0), ("label", 3, 2)]
