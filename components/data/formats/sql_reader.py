"""SQL reader: rows of a query against SQLite or PostgreSQL, through a cursor that keeps a few thousand in memory."""

from __future__ import annotations

import datetime as dt
import decimal
import sqlite3
import uuid
from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from raypath.components.core.errors import DataError, Unavailable, UserError
from raypath.components.core.uris import sqlite_path
from raypath.components.data.columns.schema import Columns, from_objects
from raypath.components.data.formats.limits import BATCH_BYTES, too_long
from raypath.components.data.sources.data_file import DataFile, FileSettings
from raypath.components.data.streaming.parquet import GROUP_ROWS


def sql_columns(file: DataFile, wanted: Collection[str] = ()) -> list[str]:
    """Return the column names of the query's result."""
    with _result(file) as result:
        return [str(name) for name in result.keys()]  # noqa: SIM118


def sql_rows(file: DataFile, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """Yield (row, table) of the query's result, in its order."""
    with _result(file) as result:
        keys = list(result.keys())
        wanted = [(keys.index(name), name) for name in dict.fromkeys(columns.selected().values())]
        first, size, batch = 1, 0, list[dict[str, Any]]()
        for row in result:
            values = {name: _plain(row[position]) for position, name in wanted}
            batch.append(values)
            length = sum(len(value) for value in values.values() if isinstance(value, str | bytes))
            if length > BATCH_BYTES:
                raise too_long(file, first + len(batch) - 1)
            size += length
            if len(batch) == GROUP_ROWS or size > BATCH_BYTES:
                yield first, from_objects(file, columns, batch, first)
                first, size, batch = first + len(batch), 0, []
        if batch:
            yield first, from_objects(file, columns, batch, first)


def rows_fingerprint(url: str, query: str) -> str:
    """Digest of the rows that a query gives now, in any order; the PostgreSQL server computes it."""
    # The query is the user's own, on a connection that cannot write.
    inner = query.strip().rstrip(";")
    digest = f"SELECT count(*), sum(hashtextextended(q::text, 0)) FROM ({inner}) AS q"  # nosec
    file = DataFile(Path(), "sql", url=url, settings=FileSettings(query=digest))
    with _result(file) as result:
        return ":".join(str(value) for value in result.one())


@contextmanager
def _result(file: DataFile) -> Generator[Any, None, None]:
    """Run the query in a connection that cannot write."""
    import sqlalchemy as sa
    from sqlalchemy.exc import DBAPIError, ResourceClosedError, SQLAlchemyError

    try:
        engine = sa.create_engine(_url(file), poolclass=sa.pool.NullPool)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _limited)
    except (SQLAlchemyError, ImportError):
        fix = (
            "wanted sqlite:///PATH, or postgresql://HOST/NAME with the extra postgres: pip install 'raypath[postgres]'"
        )
        raise UserError(f"{file.name} cannot be opened", fix=fix) from None
    options: dict[str, Any] = {"stream_results": True, "max_row_buffer": GROUP_ROWS, "no_parameters": True}
    if engine.dialect.name == "postgresql":
        options["postgresql_readonly"] = True
    try:
        with engine.connect() as connection:
            result = connection.execution_options(**options).exec_driver_sql(file.settings.query)
            with closing(result):
                yield result
    except ResourceClosedError:
        raise DataError("read.query returns no rows", fix="wanted a SELECT") from None
    except DBAPIError as error:
        raise _failed(file, error) from None
    finally:
        engine.dispose()


def _limited(connection: Any, _: Any) -> None:
    """Limit a connection to SQLite to reading, and its values to BATCH_BYTES: a view may make up any."""
    connection.set_authorizer(_reads)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, BATCH_BYTES)


def _reads(action: int, first: str | None, *_: Any) -> int:
    """Allow SQLite to read the database. A read-only connection may attach other files, and VACUUM INTO writes one."""
    allowed = {
        *(sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE),
        sqlite3.SQLITE_TRANSACTION,
    }
    return sqlite3.SQLITE_OK if action in allowed or first == "data_version" else sqlite3.SQLITE_DENY


def _url(file: DataFile) -> Any:
    """Return the URL for SQLAlchemy; SQLite is opened for reading."""
    path = sqlite_path(file.url)
    if path is None:
        return file.url
    from sqlalchemy import URL

    # Of a file: URI, in which %, ? and # of a path have another meaning.
    return URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})


def _failed(file: DataFile, error: Any) -> Exception:
    """Translate an error of the driver. Errors of the class DataError quote values of rows, so they are not shown."""
    text = str(error.orig).strip()
    if isinstance(error.orig, sqlite3.DataError) and "too big" in text:
        what = f"{file.name} has a row with more than {BATCH_BYTES >> 20} MiB in read.query"
        return DataError(what, fix="select shorter values, such as substr(text, 1, 1000000)")
    reason = text.splitlines()[0][:160] if text and type(error).__name__ != "DataError" else type(error.orig).__name__
    no_server = file.url.startswith("postgresql") and type(error.orig).__name__ == "OperationalError"
    if error.connection_invalidated or no_server:
        fix = "check the server, PGPASSWORD or ~/.pgpass, then run the command again"
        return Unavailable(f"{file.name} does not respond ({reason})", fix=fix)
    return DataError(f"{file.name} rejects read.query ({reason})", fix="correct read.query or read.uri")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dt.date | dt.time | uuid.UUID):
        return str(value)
    return value
