"""SQL: SQLite, and a real PostgreSQL that the test starts for itself."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from raypath.components import DataError, ParamsError, RaypathError, Unavailable
from raypath.components.core.columns import Column
from raypath.components.core.uris import absolute
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import rows_of
from raypath.components.data.sources.data_file import DataFile, FileSettings
from raypath.components.data.sources.files import check_exists
from raypath.components.read import ReadParams
from raypath.deploy.execution.cache_key import settings_of
from tests.components.reading import Read
from tests.waiting import free_port

QUERY = "SELECT text, label FROM reviews ORDER BY id"
ROWS = [('a 50% "off"', "x"), ("two\nlines", "y"), ("喜剧", "x")]


@pytest.fixture
def database(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "d.db") as connection:
        connection.execute("CREATE TABLE reviews (id INTEGER, text, label, stars)")
        rows = [(n, *row, n if n else None) for n, row in enumerate(ROWS)]
        connection.executemany("INSERT INTO reviews VALUES (?, ?, ?, ?)", rows)
    connection.close()
    return f"sqlite:///{tmp_path}/d.db"


def test_sqlite(database: str, reading: Read) -> None:
    assert [(row["text"], row["label"]) for row in reading(database, query=QUERY)[1]] == ROWS
    query = "SELECT text, stars FROM reviews WHERE text LIKE '%' AND ':a' = ':a' ORDER BY id"
    dataset, rows = reading(database, query=query, label="stars", nulls="drop")
    assert (dataset.label_kind, [row["label"] for row in rows]) == ("int", ["1", "2"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT text FROM absent", r"rejects read\.query \(no such table: absent\)"),
        ("DELETE FROM reviews", "not authorized"),
        ("INSERT INTO reviews VALUES (1, 2, 3, 4) RETURNING text, label", "not authorized"),
        ("SELECT text FROM reviews", "has no column label; it has text"),
        ("SELECT stars AS text, label FROM reviews WHERE stars > 0", "has int in row 1; wanted text"),
    ],
)
def test_queries_that_cannot_be_read(database: str, reading: Read, query: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        reading(database, query=query)


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, said in (
        ({"uri": "postgresql://me:SECRET@host/db", "query": QUERY}, "PGPASSWORD"),
        ({"uri": "postgresql://host/db?password=SECRET", "query": QUERY}, "PGPASSWORD"),
        ({"uri": "sqlite:///d.db"}, "a database needs a query"),
    ):
        with pytest.raises(ParamsError, match=said) as caught:
            ReadParams().override(changes)
        assert "SECRET" not in str(caught.value)
    with pytest.raises(DataError, match=r"no file at sqlite:///none\.db"):
        check_exists(["sqlite:///none.db"])
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///d.db") == f"sqlite:///{tmp_path}/d.db"
    assert absolute("d.csv") == f"{tmp_path}/d.csv"
    assert absolute("postgresql://host/db") == "postgresql://host/db"


def test_a_change_of_the_database_is_another_key(database: str) -> None:
    params = ReadParams(uri=database, query=QUERY)
    before = settings_of("params", params, "read")
    assert settings_of("params", params, "read") == before
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE reviews SET label = 'z'")
    connection.close()
    assert settings_of("params", params, "read") != before


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an empty database on a PostgreSQL server of its own, run by another user where the tests are root's."""
    pytest.importorskip("psycopg")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb") or (programs and str(programs[-1] / "initdb"))
    if not found:
        pytest.skip("no PostgreSQL (apt-get install postgresql)")
    root = os.getuid() == 0
    if root and "nobody" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user nobody")
    user = "nobody" if root else None
    folder = tmp_path_factory.mktemp("postgres")
    # The other user has to reach it; with pytest-xdist it lies one folder deeper.
    for each in (folder, *folder.parents):
        if not each.name.startswith(("postgres", "popen-", "pytest-")):
            break
        each.chmod(0o755)
    data = folder / "data"
    data.mkdir(mode=0o700)
    if user:
        shutil.chown(data, user)
    port, programs_folder = free_port(), Path(found).parent

    def run(*command: str) -> None:
        subprocess.run(command, user=user, cwd="/", check=True, capture_output=True)

    run(found, "-D", str(data), "-U", "me", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    control = str(programs_folder / "pg_ctl")
    run(control, "-D", str(data), "-o", options, "-l", str(data / "log"), "-w", "start")
    try:
        yield f"postgresql://me@127.0.0.1:{port}/postgres"
    finally:
        run(control, "-D", str(data), "-m", "immediate", "stop")


def execute(server: str, *statements: str) -> None:
    import psycopg

    with psycopg.connect(server) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


def test_postgresql(server: str, reading: Read) -> None:
    execute(
        server,
        "CREATE TABLE reviews (id serial, text text, label numeric, at date)",
        "INSERT INTO reviews (text, label, at) VALUES ('a 50%', 1, '2024-01-02'), ('喜剧', 2.0, NULL)",
        "CREATE TABLE many AS SELECT 'text ' || n AS text, n % 3 AS label FROM generate_series(1, 50000) AS n",
    )
    dataset, rows = reading(server, query=QUERY, group=None)
    assert (dataset.label_kind, rows[0], rows[1]) == (
        "int",
        {"text": "a 50%", "label": "1"},
        {"text": "喜剧", "label": "2"},
    )
    assert [row["group"] for row in reading(server, query="SELECT * FROM reviews ORDER BY id", group="at")[1]] == [
        "2024-01-02",
        None,
    ]
    file = DataFile(Path(), "sql", url=server, settings=FileSettings(query="SELECT text, label FROM many"))
    tables = list(rows_of(file, Columns((Column(name="text"),), ("label",))))
    assert [first for first, _ in tables][:3] == [1, 2049, 4097]
    assert tables[-1][1]["text"][-1].as_py() == "text 50000"


def test_a_query_sees_one_state_of_postgresql(server: str) -> None:
    """Rows that others add, change and remove while it is read are not in it."""
    execute(server, "CREATE TABLE busy AS SELECT 'text ' || n AS text, 'a' AS label FROM generate_series(1, 9000) AS n")
    reader = _reader(server, "SELECT text, label FROM busy")
    tables = [next(reader)[1]]
    execute(server, "DELETE FROM busy WHERE text LIKE '%7'", "UPDATE busy SET label = 'b'")
    execute(server, "INSERT INTO busy SELECT 'new', 'c' FROM generate_series(1, 9000)")
    tables += [table for _, table in reader]
    assert [text for table in tables for text in table["text"].to_pylist()] == [f"text {n}" for n in range(1, 9_001)]
    assert {label for table in tables for label in table["label"].to_pylist()} == {"a"}


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_query_sees_one_state_of_sqlite(tmp_path: Path, mode: str) -> None:
    """With a write-ahead log others may write meanwhile; without one SQLite makes them wait."""
    with sqlite3.connect(tmp_path / "d.db", timeout=0.1) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE busy (text, label)")
        connection.executemany("INSERT INTO busy VALUES (?, 'a')", [(f"text {n}",) for n in range(9_000)])
    reader = _reader(f"sqlite:///{tmp_path}/d.db", "SELECT text, label FROM busy ORDER BY rowid")
    tables = [next(reader)[1]]
    change = "UPDATE busy SET label = 'b'"
    if mode == "wal":
        connection.execute(change)
        connection.commit()
    else:
        with pytest.raises(sqlite3.OperationalError, match="locked"), connection:
            connection.execute(change)
    tables += [table for _, table in reader]
    connection.close()
    assert [text for table in tables for text in table["text"].to_pylist()] == [f"text {n}" for n in range(9_000)]
    assert {label for table in tables for label in table["label"].to_pylist()} == {"a"}


def _reader(url: str, query: str) -> Iterator[tuple[int, pa.Table]]:
    file = DataFile(Path(), "sql", url=url, settings=FileSettings(query=query))
    return rows_of(file, Columns((Column(name="text"),), ("label",)))


def test_the_key_of_postgresql_follows_its_rows(server: str) -> None:
    execute(server, "CREATE TABLE keyed (text text, label text)", "INSERT INTO keyed VALUES ('a', 'x'), ('b', NULL)")
    params = ReadParams(uri=server, query="SELECT text, label FROM keyed;")
    keys = [settings_of("params", params, "read")]
    keys.append(settings_of("params", params, "read"))
    execute(server, "UPDATE keyed SET label = 'y' WHERE text = 'b'")
    keys.append(settings_of("params", params, "read"))
    assert keys[0] == keys[1] != keys[2]


def test_what_is_wrong_with_postgresql(server: str, reading: Read) -> None:
    for query, said in (
        ("DELETE FROM reviews", "rejects read.query .syntax error at or near"),
        ("SELECT nothing", 'rejects read.query .column "nothing" does not exist'),
        ("SELECT nextval('reviews_id_seq')", "rejects read.query .cannot execute nextval.. in a read-only transaction"),
        ("SELECT 'SECRET'::int", "rejects read.query .InvalidTextRepresentation"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            reading(server, query=query)
        assert "SECRET" not in str(caught.value)
    with pytest.raises(Unavailable, match=r"does not respond .*check the server, PGPASSWORD") as told:
        reading("postgresql://me@127.0.0.1:9/none", query="SELECT 1")
    assert isinstance(told.value, RaypathError)
