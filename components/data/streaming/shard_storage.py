"""Files of tasks in object storage: uploaded by the task that writes one, fetched by the task that reads it, on any
node.

    s3://BUCKET/FOLDER/shards/<sha256>               of datasets: the name is the content, so an upload replaces nothing
    s3://BUCKET/FOLDER/scratch/<key>/parts/<sha256>  of a running step, deleted when it is committed
    CACHE/<sha256>.parquet                           on each machine, of bounded size (shard_cache)

`.origin.json` beside a manifest marks a dataset whose shards are not in its folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.context import ShardStorage
from raypath.components.core.errors import StoreError
from raypath.components.core.files import file_digest, is_disk_full, locked
from raypath.components.data.sources.bucket import Bucket
from raypath.components.data.streaming.manifest import WrittenShard
from raypath.components.data.streaming.shard_cache import cached, make_room, open_cached, place

ORIGIN = ".origin.json"
TRIES = 3
"""Downloads of a shard before the stored object counts as corrupt."""
log = logging.getLogger("raypath.store")


class Origin(BaseModel):
    """Location of the shards of a dataset. artifact: digest of the artifact that has it, "" until it is committed."""

    model_config = ConfigDict(frozen=True)

    address: str
    cache: Path
    artifact: str = ""
    folder: str = "shards"

    @classmethod
    def of(cls, storage: ShardStorage, artifact: str = "") -> Origin:
        return cls(address=storage.address, cache=storage.cache, artifact=artifact, folder=storage.folder)

    def write(self, folder: Path) -> None:
        """Mark a folder."""
        (folder / ORIGIN).write_text(self.model_dump_json(), encoding="utf-8")

    def name(self, shard: WrittenShard) -> str:
        """Name of a shard in the bucket."""
        return f"{self.folder}/{shard.sha256}"


def read_origin(folder: Path) -> Origin | None:
    """Return the origin of a folder's shards; None if they are in the folder."""
    try:
        return Origin.model_validate_json((folder / ORIGIN).read_bytes())
    except (OSError, ValidationError):
        return None


def describe(path: Path, name: str, rows: int = 0, counted: int = 0, **more: Any) -> WrittenShard:
    """Return size and digest of a file, under a name."""
    size = path.stat().st_size
    return WrittenShard(name=name, rows=rows, bytes=size, sha256=file_digest(path), counted=counted, **more)


def upload(storage: ShardStorage, path: Path, shard: WrittenShard) -> None:
    """Upload a shard, and move it to this machine's cache."""
    bucket, name = bucket_of(storage.address), f"{storage.folder}/{shard.sha256}"
    if bucket.size(name) != shard.bytes:
        bucket.upload(path, name)
    storage.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    make_room(storage.cache, shard.bytes)
    shutil.move(path, cached(storage.cache, shard.sha256))


def upload_copy(storage: ShardStorage, path: Path, copy: Path, rows: int = 0) -> WrittenShard:
    """Upload a file that stays where it is, and return its description. copy: path of a temporary copy."""
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    copy.unlink(missing_ok=True)
    shutil.copyfile(path, copy)
    shard = describe(copy, copy.name, rows)
    upload(storage, copy, shard)
    return shard


def is_stored(storage: ShardStorage, shard: WrittenShard) -> bool:
    """Return True if the bucket has a shard."""
    return bucket_of(storage.address).size(f"{storage.folder}/{shard.sha256}") == shard.bytes


@contextlib.contextmanager
def fetched(origin: Origin, shard: WrittenShard) -> Iterator[Path]:
    """Yield the path of a shard in this machine's cache, where it remains meanwhile; downloaded if it is not there.

    Raises StoreError if it is missing or corrupt; the artifact then counts as missing, and its step runs again.
    """
    with kept(origin.cache, shard.sha256, shard.bytes, lambda temporary: _download(origin, shard, temporary)) as path:
        yield path


@contextlib.contextmanager
def kept(cache: Path, name: str, size: int, download: Callable[[Path], None]) -> Iterator[Path]:
    """Yield the path of a file in a cache, where it remains meanwhile. name: 64 hex digits that stand for its content.

    download: writes the file where it is missing. Raises what it raises, and StoreError for a full disk.
    """
    target = cached(cache, name)
    handle = open_cached(target)
    if handle is None:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Two tasks of a machine may need the same file.
        with locked(cache / f".{name[:2]}"):
            handle = open_cached(target)
            if handle is None:
                handle = _placed(cache, size, target, download)
    try:
        yield target
    finally:
        os.close(handle)


def _placed(cache: Path, size: int, target: Path, download: Callable[[Path], None]) -> int:
    """Download a file to its place; returns a handle as `open_cached`."""
    make_room(cache, size)
    free = shutil.disk_usage(cache).free
    if size > free:
        what = f"a shard takes {size >> 20} MiB, and the disk of {cache} has {free >> 20} MiB free"
        raise StoreError(what, fix="free disk space or set RAYPATH_HOME, then run again")
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}")
    try:
        download(temporary)
        return place(temporary, target)
    except OSError as error:
        reason = "the disk is full" if is_disk_full(error) else error.strerror
        raise StoreError(f"cannot fetch to {cache}: {reason}", fix="free disk space, then run again") from None
    finally:
        temporary.unlink(missing_ok=True)


def _download(origin: Origin, shard: WrittenShard, temporary: Path) -> None:
    """Download and verify a shard."""
    bucket, name = bucket_of(origin.address), origin.name(shard)
    for attempt in range(TRIES):
        with contextlib.suppress(FileNotFoundError):
            bucket.download(name, temporary, shard.bytes)
        if temporary.is_file() and file_digest(temporary) == shard.sha256:
            return
        temporary.unlink(missing_ok=True)
        log.warning("shard %s does not match its digest (attempt %d of %d)", shard.name, attempt + 1, TRIES)
    bucket.delete([name, *([f"manifests/{origin.artifact}.json"] if origin.artifact else [])])
    raise StoreError(
        f"{origin.address}/{name} is missing or corrupt", fix="run the same command again, which recomputes it"
    )


@lru_cache(maxsize=4)  # a client for each process
def bucket_of(address: str) -> Bucket:
    """Return this process's client of a bucket."""
    return Bucket(address)
