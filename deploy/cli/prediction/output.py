"""Output file of `raypath predict`: checked before anything costly, written completely or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import INPUT_PREFIX
from raypath.components.core.errors import ParamsError
from raypath.components.core.files import disk_full_as_store_error
from raypath.components.core.uris import scheme
from raypath.components.data.columns.spreadsheet import safe_cell, safe_column

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".csv", ".jsonl", ".parquet")


def check_target(target: Path) -> None:
    """Raise ParamsError for a file of unknown format, that exists, or that cannot be written."""
    if target.suffix not in FORMATS:
        raise ParamsError(f"-o {target}: unknown format", fix=f"end it in one of {', '.join(FORMATS)}")
    if not target.parent.is_dir():
        raise ParamsError(f"-o {target}: there is no folder {target.parent}", fix="create it first")
    if os.path.lexists(target):
        raise ParamsError(f"{target} exists", fix="remove it, or name another with -o")
    _check_writable(target)


def _check_writable(target: Path) -> None:
    """Raise ParamsError if the file cannot be created, such as on a read-only disk or with a name that is too long."""
    temporary = _temporary(target)
    try:
        with open(temporary, "xb"):
            pass
    except OSError as error:
        what = f"-o {target} cannot be written ({error.strerror})"
        raise ParamsError(what, fix="name another file or folder with -o") from None
    temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """Return a path that another user of the folder cannot have made a link of."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}")


def default_output(data: str, suffix: str) -> Path:
    """Return the path beside a data file, or in the current folder, where no -o names one."""
    if scheme(data):
        return Path(f"predictions{suffix}")
    path = Path(data)
    stem = path.name.partition(".")[0] or "data"
    return (path.parent if path.parent.is_dir() else Path()) / f"{stem}.predictions{suffix}"


def write(result: Dataset, target: Path) -> None:
    """Write the rows to one file, one row group at a time, atomically. Raises StoreError for a full disk."""
    from raypath.components.data.streaming.parquet import scan, schema_of

    schema = schema_of(result.uri)
    names = _user_names(schema.names)
    tables = (table.rename_columns(names) for table in scan(result.uri))
    write_tables(schema.empty_table().rename_columns(names).schema, tables, target)


def write_tables(schema: pa.Schema, tables: Iterable[pa.Table], target: Path) -> None:
    """Write tables to one file, atomically. Raises StoreError for a full disk."""
    temporary = _temporary(target)
    writer = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[target.suffix]
    try:
        with disk_full_as_store_error(f"no space left for {target}"):
            writer(schema, tables, temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _user_names(stored: Sequence[str]) -> list[str]:
    """Return the user's names of input columns; a name that another column has keeps its prefix."""
    plain = [name.removeprefix(INPUT_PREFIX) for name in stored]
    return [short if plain.count(short) == 1 else name for name, short in zip(stored, plain, strict=True)]


def _csv(schema: pa.Schema, tables: Iterable[pa.Table], path: Path) -> None:
    import pyarrow.csv as csv

    with csv.CSVWriter(path, _plain(schema.empty_table()).schema) as file:
        for table in tables:
            file.write_table(_plain(table))


def _plain(rows: pa.Table) -> pa.Table:
    """Join lists, such as sets of labels, to text separated by |, because CSV has no lists; no cell is a formula."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for n, field in enumerate(rows.schema):
        if pa.types.is_list(field.type):
            words = pc.cast(rows.column(n), pa.list_(pa.string()))
            rows = rows.set_column(n, field.name, pc.binary_join(words, "|"))
    columns = {safe_cell(name): safe_column(rows[name]) for name in rows.column_names}
    return pa.table(columns)


def _parquet(schema: pa.Schema, tables: Iterable[pa.Table], path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema) as file:
        for table in tables:
            file.write_table(table)


def _jsonl(schema: pa.Schema, tables: Iterable[pa.Table], path: Path) -> None:
    import json

    with open(path, "w", encoding="utf-8") as file:
        for table in tables:
            for row in table.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False, default=datetime.isoformat) + "\n")
