"""Databases from strangers: a view makes up a value of any size."""

from __future__ import annotations

import logging
import resource
import sqlite3
from pathlib import Path

import pytest

from raypath.components.core.columns import Column
from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import rows_of
from raypath.components.data.sources.files import find
from raypath.components.read import ReadParams

MIB = 1 << 20


def read(path: Path, query: str) -> int:
    settings = ReadParams(uri=f"sqlite:///{path}", text="text", label="label", query=query).file_settings
    [file] = find(f"sqlite:///{path}", logging.getLogger("test"), path.parent, settings)
    return sum(table.num_rows for _, table in rows_of(file, Columns((Column(name="text"),), ("label",))))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "a.db") as made:
        made.execute("CREATE VIEW value AS SELECT hex(zeroblob(400000000)) AS text, 'x' AS label")
        made.execute("CREATE VIEW bytes AS SELECT zeroblob(900000000) AS text, 'x' AS label")
        made.execute(f"CREATE VIEW two AS SELECT hex(zeroblob({20 * MIB})) AS text, hex(zeroblob({20 * MIB})) AS label")
        made.execute(f"CREATE VIEW fits AS SELECT hex(zeroblob({20 * MIB})) AS text, 'x' AS label")
    made.close()
    return tmp_path / "a.db"


@pytest.mark.parametrize("view", ["value", "bytes"])
def test_a_long_value(database: Path, view: str) -> None:
    """A row of 800 MB took 3.4 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"has a row with more than 64 MiB in read\.query; select shorter values"):
        read(database, f"SELECT * FROM {view}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def test_a_long_row_is_named(database: Path) -> None:
    with pytest.raises(DataError, match=r"row 2 is longer than 64 MiB"):
        read(database, "SELECT * FROM fits UNION ALL SELECT * FROM two")
    assert read(database, "SELECT * FROM fits") == 1
