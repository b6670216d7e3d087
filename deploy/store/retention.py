"""Retention: days after which a home deletes what it keeps, by kind.

    retention.json    days by kind; a kind that is not named is kept

    artifacts     outputs of steps that no run has used for so long; the steps run again when they are needed
    scratch       checkpoints of steps that were not finished
    runs          entries of the run history
    predictions   predictions that endpoints logged, with texts where `serve.log_texts` is set
    usage         usage of API keys, by day
    logs          logs of runs, and earlier ones of services

Registered versions are in MLflow and stay, as do the audit log and the keys. The days are applied after each run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from raypath.components.core.errors import ParamsError, PlatformError
from raypath.components.core.files import locked, write_atomically
from raypath.deploy.store.audit.log import record
from raypath.deploy.store.store import Store, place_of

Kind = Literal["artifacts", "scratch", "runs", "predictions", "usage", "logs"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEAST_DAYS = {"usage": 62}
"""Fewest days of a kind; others 1. Quotas count the usage of this month, and bills are written in the next one."""
_DAY = 86_400.0
_DATED = re.compile(r"(\d{4}-\d\d-\d\d)\.")
_SERVICE_LOGS = frozenset({"ray.log", "mlflow.log"})


class Deleted(BaseModel):
    """Files and folders of one kind that retention has deleted, or would delete."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Kind
    days: int
    count: int
    """Files or folders."""
    bytes: int


def read_days(home: Path) -> dict[Kind, int]:
    """Return the days by kind. Raises PlatformError for a corrupt file."""
    file = home / "retention.json"
    try:
        found = json.loads(file.read_text("utf-8"))
        return {kind: int(found[kind]) for kind in KINDS if kind in found}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError):
        raise PlatformError(f"{file} is corrupt", fix="remove it, and set the days again") from None


def write_days(home: Path, changes: Mapping[str, int | None]) -> dict[Kind, int]:
    """Change the days of kinds, None to keep a kind; returns all. Raises ParamsError."""
    for name, days in changes.items():
        if name not in KINDS:
            raise ParamsError(f"there is no kind {name}", fix=f"name one of {', '.join(KINDS)}")
        least = LEAST_DAYS.get(name, 1)
        if days is not None and not least <= days <= 36_500:
            raise ParamsError(f"{name}={days}", fix=f"give at least {least} days, or `never`")
    merged: dict[str, int | None] = {**changes}
    for name, days in read_days(home).items():
        merged.setdefault(name, days)
    kept: dict[Kind, int] = {kind: days for kind in KINDS if (days := merged.get(kind)) is not None}
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(home / "retention.json", json.dumps(kept, indent=1))
    return kept


def apply(store: Store, dry_run: bool = False, now: float | None = None) -> list[Deleted]:
    """Delete what is older than the home's days, and return what was deleted. dry_run: delete nothing.

    What a running process of this machine uses is skipped.
    """
    now = time.time() if now is None else now
    found = []
    for kind, days in read_days(store.home).items():
        size = count = 0
        for path in _EXPIRED[kind](store, now - days * _DAY):
            measured = _size(path)
            if dry_run or delete(path):
                size, count = size + measured, count + 1
        found.append(Deleted(kind=kind, days=days, count=count, bytes=size))
    return found


def enforce(store: Store) -> list[Deleted]:
    """Apply the home's days, and record in the audit log what was deleted. Raises PlatformError."""
    found = apply(store)
    counts: dict[str, int] = {each.kind: each.count for each in found if each.count}
    if counts:
        record(store.home, "retention.apply", str(store.home), detail=counts)
    return found


def _expired_artifacts(store: Store, before: float) -> Iterator[Path]:
    """Yield records that were not used, each before the folders that only such records name."""
    if "://" in store.address:
        return  # a bucket deletes by its own lifecycle rules
    used = _last_use(store.home)
    records: dict[Path, tuple[bool, set[str]]] = {}
    for path in (store.place / "records").glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            last = max(path.stat().st_mtime, used.get(path.stem, 0.0))
            records[path] = last < before, set(digests_in(json.loads(store.read_stored(path)).get("artifact")))
    kept = {digest for old, digests in records.values() if not old for digest in digests}
    yield from (path for path, (old, _) in records.items() if old)
    for folder in (store.place / "artifacts").iterdir():
        # A folder without a record is young while its step commits.
        if folder.name.partition(".")[0] not in kept and folder.stat().st_mtime < before:
            # That of an encrypted artifact makes it complete.
            manifest = store.place / "manifests" / f"{folder.name}.json"
            yield from [manifest] if manifest.exists() else []
            yield folder


def digests_in(artifact: Any) -> Iterator[str]:
    """Yield the content addresses in the JSON of an artifact, nested ones included."""
    if isinstance(artifact, dict):
        place = place_of(str(artifact.get("uri", "")))
        if place:
            yield place[0]
        for value in artifact.values():
            yield from digests_in(value)


def _last_use(home: Path) -> dict[str, float]:
    """Return the time at which a run last made or reused a step, by its key; now for a run in progress."""
    found: dict[str, float] = {}
    for path in (home / "runs").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            run = json.loads(path.read_bytes())
            at = time.time() if _is_running(run, path) else _end(run, path)
            for step in run["steps"]:
                found[step["key"]] = max(at, found.get(step["key"], 0.0))
    return found


def _expired_scratch(store: Store, before: float) -> Iterator[Path]:
    for folder in _children(store.place / "scratch"):
        newest = max((path.lstat().st_mtime for path in [folder, *folder.rglob("*")]), default=0.0)
        if newest >= before:
            continue
        with locked(store.root / "locks" / folder.name, fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
            if free:
                yield folder


def _expired_runs(store: Store, before: float) -> Iterator[Path]:
    for path in (store.home / "runs").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            run = json.loads(path.read_bytes())
            if not _is_running(run, path) and _end(run, path) < before:
                yield path


def _is_running(run: dict[str, Any], file: Path) -> bool:
    """Return True for a run in progress; one whose process was killed is none, although its file says so."""
    import psutil

    if run["status"] != "running" or run.get("cluster"):
        return bool(run["status"] == "running")
    try:
        # The number may be that of a later process.
        return bool(psutil.Process(run["pid"]).create_time() <= file.stat().st_mtime + 1)
    except (psutil.Error, KeyError, ValueError):
        return False


def _end(run: dict[str, Any], file: Path) -> float:
    """Return the time at which a run ended; of one that was killed, that of its last change."""
    return float(run["ended"] or file.stat().st_mtime)


def _expired_predictions(store: Store, before: float) -> Iterator[Path]:
    for folder in _children(store.home / "predictions"):
        yield from _dated(folder, before)


def _expired_usage(store: Store, before: float) -> Iterator[Path]:
    with _usage_lock(store.home / "access" / "usage"):
        yield from _dated(store.home / "access" / "usage", before)


@contextlib.contextmanager
def _usage_lock(folder: Path) -> Iterator[None]:
    """Keep readers and the compaction of usage files away meanwhile."""
    from raypath.components.serving.metering.usage_files import LOCK

    if folder.is_dir():
        with locked(folder / LOCK):
            yield
    else:
        yield


def _expired_logs(store: Store, before: float) -> Iterator[Path]:
    for path in _children(store.home / "logs"):
        if path.name not in _SERVICE_LOGS and path.lstat().st_mtime < before:
            yield path


def _dated(folder: Path, before: float) -> Iterator[Path]:
    """Yield the files whose names begin with a day that has ended before a time."""
    for path in _children(folder):
        day = _DATED.match(path.name)
        with contextlib.suppress(ValueError):
            if day and _end_of(day[1]) <= before:
                yield path


def _end_of(day: str) -> float:
    return (datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)).timestamp()


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    found = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return sum(each.lstat().st_size for each in found if os.path.lexists(each) and not each.is_dir())


def delete(path: Path) -> bool:
    """Delete a file or folder; a link goes without what it leads to. Returns False where it was in use or gone."""
    try:
        if path.is_dir() and not path.is_symlink():
            # Renamed first: nobody finds a folder that has lost a part of its files.
            doomed = path.with_name(f".{path.name}.deleted")
            shutil.rmtree(doomed, ignore_errors=True)  # of a deletion that was interrupted
            path.rename(doomed)
            shutil.rmtree(doomed)
        else:
            path.unlink()
    except OSError:
        return False
    return True


_EXPIRED = {
    "artifacts": _expired_artifacts,
    "scratch": _expired_scratch,
    "runs": _expired_runs,
    "predictions": _expired_predictions,
    "usage": _expired_usage,
    "logs": _expired_logs,
}
