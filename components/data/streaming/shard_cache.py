"""Shards on this machine: files named by their SHA-256, of which those used longest ago are removed beyond a limit.

The limit is RAYPATH_SHARD_CACHE, such as 200Gi; without it half of the disk space that is free or taken by shards. A
reader has a shared lock on its file, so that a shard in use is never removed; shards in use may exceed the limit.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from raypath.components.core.errors import ParamsError
from raypath.components.core.files import locked, write_atomically

LIMIT = "RAYPATH_SHARD_CACHE"
"""Environment variable with the most bytes of a machine's shards, such as 200Gi."""
_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_LOCK, _REMOVED = ".lock", ".removed.json"
log = logging.getLogger("raypath.store")


class CacheUse(NamedTuple):
    """State of a cache. limit: most bytes; removed, removed_bytes: so far."""

    shards: int
    bytes: int
    limit: int
    removed: int = 0
    removed_bytes: int = 0


class _Removals(NamedTuple):
    removed: int = 0
    removed_bytes: int = 0


class _Cached(NamedTuple):
    used: float
    size: int
    path: Path


def cached(cache: Path, sha256: str) -> Path:
    """Path of a shard in a cache."""
    return cache / f"{sha256}.parquet"


def parse_limit(text: str) -> int:
    """Return the bytes of a limit such as 200Gi; 0 for "". Raises ParamsError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(|Ki|Mi|Gi|Ti)", text.strip() or "0")
    if found is None:
        raise ParamsError(f"{LIMIT} is {text!r}; wanted a size", fix="write it as in 500Mi, 200Gi or 2Ti")
    return int(float(found[1]) * _UNITS[found[2]])


def passed_environment() -> dict[str, str]:
    """Return the variable that a launcher passes on to the nodes; {} if it is not set."""
    return {LIMIT: os.environ[LIMIT]} if os.environ.get(LIMIT) else {}


def open_cached(path: Path) -> int | None:
    """Open a shard with a shared lock; it remains until the handle is closed. None if it is not there."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        # It may have been removed, or replaced, before the lock.
        if os.path.samestat(os.stat(path), os.fstat(handle)):
            os.utime(path)
            return handle
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def place(temporary: Path, target: Path) -> int:
    """Move a complete file to its place in the cache; returns a handle with a shared lock, as `open_cached`."""
    handle = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        os.replace(temporary, target)
    except BaseException:
        os.close(handle)
        raise
    return handle


def make_room(cache: Path, wanted: int) -> None:
    """Remove shards, those used longest ago first, until `wanted` more bytes fit in the limit and on the disk."""
    with locked(cache / _LOCK):
        files = _files(cache)
        total = sum(each.size for each in files)
        free = shutil.disk_usage(cache).free
        excess = max(total + wanted - _limit(free, total), wanted - free)
        shards = removed = 0
        for each in sorted(files):
            if removed >= excess:
                break
            if _remove(each.path):
                shards, removed = shards + 1, removed + each.size
        if shards:
            _record(cache, shards, removed)
            log.info("removed %d shards (%d MiB) from %s, used longest ago", shards, removed >> 20, cache)


def usage(cache: Path) -> CacheUse | None:
    """Return the state of a cache; None if there is none."""
    if not cache.is_dir():
        return None
    files = _files(cache)
    total = sum(each.size for each in files)
    before = _removed(cache)
    limit = _limit(shutil.disk_usage(cache).free, total)
    return CacheUse(len(files), total, limit, *before)


def _limit(free: int, total: int) -> int:
    return parse_limit(os.environ.get(LIMIT, "")) or (free + total) // 2


def _files(cache: Path) -> list[_Cached]:
    found = []
    with os.scandir(cache) as entries:
        for entry in entries:
            if entry.name.endswith(".parquet") and not entry.name.startswith("."):
                with suppress(FileNotFoundError):
                    stat = entry.stat()
                    found.append(_Cached(stat.st_mtime, stat.st_size, Path(entry.path)))
    return found


def _remove(path: Path) -> bool:
    """Remove a shard, unless a process of this machine reads it."""
    with _exclusive(path) as acquired:
        if acquired:
            path.unlink()
        return acquired


@contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(handle)


def _removed(cache: Path) -> _Removals:
    try:
        return _Removals(**json.loads((cache / _REMOVED).read_bytes()))
    except (OSError, ValueError, TypeError):
        return _Removals()


def _record(cache: Path, shards: int, size: int) -> None:
    before = _removed(cache)
    now = _Removals(before.removed + shards, before.removed_bytes + size)
    write_atomically(cache / _REMOVED, json.dumps(now._asdict()))
