"""URIs of data: secrets in them are recorded nowhere, and a query of a database writes nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from raypath.components.core.columns import Column
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import rows_of
from raypath.components.data.sources.data_file import DataFile, FileSettings
from raypath.components.read import ReadParams
from raypath.workflows.text_classification import TextClassification

COLUMNS = Columns((Column(name="text"),), ("label",))
SECRET = "SE/CRET"
URIS = [
    f"postgresql://me:{SECRET}@host/db",
    f"postgresql://host/db?%70assword={SECRET}",
    f"postgresql://host/db?sslmode=require&sslpassword={SECRET}",
    f"postgres://me:{SECRET}@host/db",
    f"mysql+pymysql://me:{SECRET}@host/db",
    f"s3://KEY:{SECRET}@bucket/data",
    f"https://host/data.csv?X-Amz-Signature={SECRET}",
    f"az://container/data.csv?sv=1&sig={SECRET}",
]


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("setting", ["uri", "valid", "test"])
def test_secrets_in_uris(uri: str, setting: str) -> None:
    with pytest.raises(ParamsError, match=f"{setting} has a password or a token, which would be recorded") as caught:
        TextClassification().override({f"read.{setting}": uri, "read.query": "SELECT 1"})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me@host:5432/db?sslmode=require",
        "s3://bucket/a@b:c",
        "models:/m@champion",
        "a:b@c.csv",
        "d/x?=1.csv",
    ],
)
def test_uris_without_secrets(uri: str) -> None:
    assert ReadParams().override({"uri": uri, "query": "SELECT 1"}).uri == uri


@pytest.mark.parametrize(
    "query",
    [
        "VACUUM INTO '{0}/new.db'",
        "ATTACH '{0}/new.db' AS other",
        "CREATE TEMP TABLE t AS SELECT 1",
        "PRAGMA writable_schema = 1",
        "INSERT INTO reviews VALUES ('a', 'b') RETURNING text, label",
    ],
)
def test_a_query_of_sqlite_reads_its_database_only(tmp_path: Path, query: str) -> None:
    connection = sqlite3.connect(tmp_path / "d.db")
    connection.execute("CREATE TABLE reviews (text, label)")
    connection.execute("INSERT INTO reviews VALUES ('tea', 'x')")
    connection.commit()
    connection.close()

    def rows(query: str) -> int:
        file = DataFile(Path(), "sql", url=f"sqlite:///{tmp_path}/d.db", settings=FileSettings(query=query))
        return sum(table.num_rows for _, table in rows_of(file, COLUMNS))

    with pytest.raises(DataError, match=r"rejects read\.query \((not authorized|authorization denied)\)"):
        rows(query.format(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["d.db"]
    recursive = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3)"
    assert rows(f"{recursive} SELECT upper(text) AS text, label FROM reviews, n ORDER BY random()") == 3
