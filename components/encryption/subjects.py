"""Keys of subjects: rows of a log about a person, which are unreadable once the person's key is destroyed.

A key is 32 random bytes in HOME/encryption/subjects/NAME.key, wrapped by the home key; NAME is a keyed hash of the
subject. It is read for each use and kept nowhere else, and it is not part of backups: rows in copies are unreadable as
well when it is gone.
"""

from __future__ import annotations

import os
import secrets
import uuid
from pathlib import Path
from typing import Any

from raypath.components.core.errors import StoreError
from raypath.components.core.files import new_file
from raypath.components.encryption.envelope import KEY, NONCE, cipher
from raypath.components.encryption.vault import Vault

FOLDER = "subjects"
SUBJECT, SEALED = "subject", "sealed"
"""Columns of a table whose rows are sealed: name of the subject, and the sealed columns."""


def subject_name(vault: Vault, subject: str) -> str:
    """Return the name of a subject's key, 32 hex digits, which tells nothing without the home key."""
    return vault.derived("subject", subject).hex()[:32]


def ensure_key(vault: Vault, subject: str) -> bytes:
    """Return the key of a subject, made if there is none."""
    path = _path(vault, subject_name(vault, subject))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    while (found := _read(vault, path)) is None:
        try:
            with new_file(temporary) as file:
                file.write(vault.seal(vault.identity(path), secrets.token_bytes(KEY)))
            # Another process may have made it meanwhile.
            os.link(temporary, path)
        except FileExistsError:
            if _is_overwritten(path):
                path.unlink(missing_ok=True)
        finally:
            temporary.unlink(missing_ok=True)
    return found


def has_key(vault: Vault, subject: str) -> bool:
    """Return True for a subject with rows that can be read."""
    return _path(vault, subject_name(vault, subject)).is_file()


def destroy_key(vault: Vault, subject: str) -> bool:
    """Destroy the key of a subject: its rows are unreadable from now on. Returns False if there was none."""
    path = _path(vault, subject_name(vault, subject))
    try:
        with open(path, "r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return False
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return True


def seal_rows(vault: Vault, table: Any, subjects: list[str], columns: list[str]) -> Any:
    """Seal columns of the rows that have a subject, each under its subject's key; the others stay as they are.

    subjects: one a row, "" for none. The table gains the columns `subject` and `sealed`, and the sealed values are
    null. Each row is authenticated with its subject and its place in the table.
    """
    import pyarrow as pa

    if not any(subjects):
        return table
    keys = {subject: ensure_key(vault, subject) for subject in set(subjects) if subject}
    names = {subject: subject_name(vault, subject) for subject in keys}
    sealed: list[bytes | None] = []
    for n, subject in enumerate(subjects):
        if not subject:
            sealed.append(None)
            continue
        sink = pa.BufferOutputStream()
        row = table.select(columns).slice(n, 1)
        with pa.ipc.new_stream(sink, row.schema) as writer:
            writer.write_table(row)
        nonce = secrets.token_bytes(NONCE)
        data = cipher(keys[subject]).encrypt(nonce, sink.getvalue().to_pybytes(), f"{names[subject]} {n}".encode())
        sealed.append(nonce + data)
    hidden = pa.array([bool(subject) for subject in subjects])
    for name in columns:
        column = table[name].combine_chunks()
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, pa.compute.if_else(hidden, pa.scalar(None, column.type), column))
    table = table.append_column(SUBJECT, pa.array([names.get(subject) for subject in subjects], pa.string()))
    return table.append_column(SEALED, pa.array(sealed, pa.binary()))


def open_rows(vault: Vault, table: Any) -> tuple[Any, int]:
    """Return a table with its sealed rows opened, and the number of rows whose key was destroyed, which stay null."""
    import pyarrow as pa

    if SEALED not in table.column_names:
        return table, 0
    rows, lost = [], 0
    for n in range(table.num_rows):
        row, name = table.slice(n, 1), table[SUBJECT][n].as_py()
        if name is not None:
            found = _opened(vault, name, n, table[SEALED][n].as_py())
            lost += found is None
            for column in found.column_names if found is not None else ():
                row = row.set_column(row.schema.get_field_index(column), table.schema.field(column), found[column])
        rows.append(row)
    return (pa.concat_tables(rows) if rows else table).drop_columns([SEALED]), lost


def _opened(vault: Vault, name: str, n: int, sealed: bytes) -> Any:
    import pyarrow as pa
    from cryptography.exceptions import InvalidTag

    key = _read(vault, _path(vault, name))
    if key is None:
        return None
    try:
        data = cipher(key).decrypt(sealed[:NONCE], sealed[NONCE:], f"{name} {n}".encode())
    except InvalidTag:
        # A subject that came back after its key was destroyed has another key.
        return None
    with pa.ipc.open_stream(data) as stream:
        return stream.read_all()


def _read(vault: Vault, path: Path) -> bytes | None:
    """Return the key in a file; None for one that is missing or destroyed. Raises StoreError for an altered one."""
    try:
        return None if _is_overwritten(path) else vault.read(path)
    except FileNotFoundError:
        return None


def _is_overwritten(path: Path) -> bool:
    """Return True for a key whose destruction was interrupted before its file was removed."""
    try:
        return not any(path.read_bytes())
    except FileNotFoundError:
        return False


def _path(vault: Vault, name: str) -> Path:
    if not (len(name) == 32 and name.isalnum()):
        raise StoreError(f"{name[:40]!r} is no name of a subject's key", fix="restore the file from a backup")
    return vault.folder / FOLDER / f"{name}.key"
