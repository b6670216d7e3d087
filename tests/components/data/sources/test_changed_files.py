"""A file that changes while it is read is noticed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import DataError
from raypath.components.core.columns import Column
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import rows_of
from raypath.components.data.sources.files import find

CHANGED = "changed while it was read; run the command again when nothing writes to the file"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("when", ["before", "within"])
def test_a_file_that_changes(tmp_path: Path, name: str, when: str) -> None:
    rows = 5_000
    if name == "a.parquet":
        pq.write_table(pa.table({"text": ["x"] * rows}), tmp_path / name)
    else:
        line, head = ('{"text": "x"}\n', "") if name == "a.jsonl" else ("x,y\n", "text,other\n")
        (tmp_path / name).write_text(head + line * rows)
    [file] = find(str(tmp_path / name), logging.getLogger())
    assert sum(table.num_rows for _, table in rows_of(file, Columns((Column(name="text"),)))) == rows
    reader = rows_of(file, Columns((Column(name="text"),)))
    if when == "within":
        next(reader)
    os.utime(tmp_path / name, (1, 1))
    with pytest.raises(DataError, match=f"{name} {CHANGED}"):
        list(reader)


def test_a_file_that_is_written_to_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,other\n" + "x,y\n" * 500_000)
    [file] = find(str(tmp_path / "a.csv"), logging.getLogger())
    reader = rows_of(file, Columns((Column(name="text"),)))
    next(reader)
    with (tmp_path / "a.csv").open("a") as more:
        more.write("half of a row")
    with pytest.raises(DataError, match=CHANGED):
        list(reader)


COLUMNS = Columns((Column(name="text"),), ("label",))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """2,200 texts of two classes, more than are read at once."""
    for label in ("a", "b"):
        (tmp_path / "texts" / label).mkdir(parents=True)
        for n in range(1_100):
            (tmp_path / "texts" / label / f"{n}.txt").write_text(f"text {n}")
    return tmp_path / "texts"


@pytest.mark.parametrize("change", ["touched", "added", "removed", "longer"])
def test_a_folder_of_texts_that_changes(texts: Path, change: str) -> None:
    [file] = find(str(texts), logging.getLogger())
    assert sum(table.num_rows for _, table in rows_of(file, COLUMNS)) == 2_200
    reader = rows_of(file, COLUMNS)
    next(reader)
    last = texts / "b" / "999.txt"
    if change == "touched":
        os.utime(last, (1, 1))
    elif change == "removed":
        last.unlink()
    else:
        (last if change == "longer" else texts / "a" / "new.txt").write_text("another text")
    with pytest.raises(DataError, match=f"texts {CHANGED}"):
        list(reader)
    with pytest.raises(DataError, match=f"texts {CHANGED}"):
        list(rows_of(file, COLUMNS))


def test_the_version_of_a_delta_table_is_pinned(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    folder = str(tmp_path / "table")
    for n in range(2):
        rows = pa.table({"text": [f"text {n}"] * 3_000, "label": ["x"] * 3_000})
        deltalake.write_deltalake(folder, rows, mode="append")
    [file] = find(folder, logging.getLogger())
    assert file.version == 1
    reader = rows_of(file, COLUMNS)
    read = next(reader)[1].num_rows
    deltalake.write_deltalake(folder, rows, mode="append")
    deltalake.DeltaTable(folder).delete("text = 'text 0'")
    assert read + sum(table.num_rows for _, table in reader) == 6_000
    assert sum(table.num_rows for _, table in rows_of(file, COLUMNS)) == 6_000
    [newer] = find(folder, logging.getLogger())
    assert sum(table.num_rows for _, table in rows_of(newer, COLUMNS)) == 6_000
    assert newer.version == 3
    for path in (tmp_path / "table").glob("*.parquet"):
        path.unlink()
    with pytest.raises(DataError, match=r"table: a file of version 1 is missing .* no vacuum"):
        list(rows_of(file, COLUMNS))
