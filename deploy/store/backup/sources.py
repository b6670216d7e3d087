"""Files of a home in an order that gives a consistent snapshot while runs continue.

1. What describes other files, read first: heads of logs, metrics that still have to be uploaded, records of steps.
2. The other files. An artifact is complete before its record is written, and never changed afterwards.
3. A copy of MLflow's database by SQLite's own backup, then MLflow's files: a version's files are there before its row.

A file of MLflow that is newer than the database's copy is not known to it, and does no harm.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raypath.components.core.errors import UserError
from raypath.deploy.store.store import SHARED

DATABASE = Path("mlflow/mlflow.db")
_FIRST = ("raypath.json", "audit/head.json", "audit", "spool", "records")
_LAST = ("mlflow",)
_EXCLUDED = frozenset(
    {"attempts", "locks", "logs", "scratch", "shards", "spill", "services.json", "ray.token", "mlflow.token"}
)
"""Names in a home that belong to processes of this machine, or are copies."""
_SUBJECTS = Path("encryption/subjects")
"""Keys of subjects, whose destruction has to count in backups as well."""
_DATABASE_FILES = frozenset({"mlflow.db-wal", "mlflow.db-shm"})


@dataclass(frozen=True)
class SourceFile:
    """File, or empty folder, that is to be stored."""

    name: str
    """Path relative to the home."""
    path: Path
    """File to read."""
    status: os.stat_result


def source_files(home: Path, temporary: Path) -> Iterator[SourceFile]:
    """Yield the files and the empty folders of a home, each once, in the order of the module's text.

    temporary: folder for the copy of the database. A file that is removed meanwhile is left out.
    """
    seen: set[str] = set()
    store = _shared_store()
    roots = [home] if store is None else [home, store]
    # Twice: a file that is gone when it is read may have been replaced by one that came after its folder was listed.
    for root, part in [(root, part) for part in [*_FIRST, "", "", *_LAST] for root in roots]:
        if part in _LAST and root == home and (home / DATABASE).is_file():
            yield _database_copy(home, temporary)
            seen.add(str(DATABASE))
        for path in _walk(root, root / part, skip=frozenset(_LAST) if part == "" else frozenset()):
            name = str(path.relative_to(root))
            if name not in seen and (found := _regular(path)) is not None:
                seen.add(name)
                yield SourceFile(name, path, found)


def check_source(home: Path, place: str) -> None:
    """Raise UserError for a folder that is no home, and for a place in what is stored, which would grow with itself."""
    if not (home / "raypath.json").is_file():
        raise UserError(f"{home} is no home of a project", fix="set RAYPATH_HOME, or run from the folder of .raypath")
    target = Path(place).expanduser().resolve()
    for root in [home, _shared_store()]:
        if root is not None and "://" not in place and target.is_relative_to(root.resolve()):
            raise UserError(f"{place} is in {root}, which is lost with it", fix="name a folder elsewhere, or s3://...")


def _shared_store() -> Path | None:
    """Return the folder of a shared store, whose files have the layout of a home; None without one, or in a bucket."""
    named = os.environ.get(SHARED, "")
    return Path(named).expanduser().resolve() if named and "://" not in named else None


def _walk(root: Path, start: Path, skip: frozenset[str]) -> Iterator[Path]:
    if start.is_file():
        yield start
        return
    for folder, folders, names in os.walk(start):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in _EXCLUDED | skip]
            names = [name for name in names if name not in _EXCLUDED]
        if Path(folder) == root / _SUBJECTS.parent:
            folders[:] = [name for name in folders if name != _SUBJECTS.name]
        # Files of artifacts have names of their authors'.
        named = {"artifacts"}.isdisjoint(Path(folder).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not (named and name.startswith(".")))
        if not folders and not names:
            yield Path(folder)  # an artifact without files, for example
        yield from (Path(folder) / name for name in sorted(names) if not (named and _is_transient(name)))


def _is_transient(name: str) -> bool:
    """Return True for locks, temporary files, and parts of the database, which is copied on its own."""
    return name.startswith(".") or name.endswith(".lock") or name in _DATABASE_FILES


def _regular(path: Path) -> os.stat_result | None:
    """Return the status of a regular file or a folder; None for sockets, links and files that are gone."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        return found if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) else None
    return None


def _database_copy(home: Path, temporary: Path) -> SourceFile:
    """Copy MLflow's database while it is in use."""
    copy = temporary / DATABASE.name
    source = sqlite3.connect(f"file:{home / DATABASE}?mode=ro", uri=True, timeout=60)
    target = sqlite3.connect(copy)
    try:
        with target:
            source.backup(target)
        # Without a write-ahead log, the file alone is the database.
        target.execute("PRAGMA journal_mode=DELETE")
    finally:
        target.close()
        source.close()
    copy.chmod(0o600)
    return SourceFile(str(DATABASE), copy, copy.stat())
