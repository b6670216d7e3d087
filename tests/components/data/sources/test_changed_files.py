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
