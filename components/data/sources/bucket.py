"""Client of a folder in an S3-compatible bucket, with errors that a user can act on.

Credentials, region and endpoint come from the usual AWS_* variables or the machine's role; `AWS_ENDPOINT_URL` selects a
server other than Amazon's. Every request is signed over the SHA-256 of its body, so a server rejects truncated parts.
Throttling, 5xx responses and broken connections are retried with exponential backoff.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from raypath.components.core.errors import ParamsError, RaypathError, Unavailable, UserError
from raypath.components.data.sources import object_storage as objects
from raypath.components.data.sources.bucket_file import open_ranges
from raypath.components.data.sources.retry import retry

PART = 16 << 20
"""Part size of large files in bytes; parts are transferred and retried one by one."""
STREAMS = 4
"""Parts transferred in parallel."""
TRIES = 5
"""Attempts of a request whose connection broke."""
MARK = "raypath.json"
T = TypeVar("T")
log = logging.getLogger("raypath.store")


class Objects(Protocol):
    """Objects by name below `address`, as a bucket stores them."""

    address: str

    def check(self) -> None: ...
    def get(self, name: str) -> tuple[bytes, str] | None: ...
    def size(self, name: str) -> int | None: ...
    def open(self, name: str) -> BinaryIO: ...
    def put(self, name: str, data: bytes) -> None: ...
    def create(self, name: str, data: bytes) -> bool: ...
    def replace(self, name: str, data: bytes, tag: str) -> bool: ...
    def upload(self, path: Path, name: str) -> None: ...
    def download(self, name: str, path: Path, size: int) -> None: ...
    def names(self, folder: str) -> list[str]: ...
    def delete(self, names: Sequence[str]) -> None: ...


class Bucket:
    """Objects below `address` (s3://BUCKET/FOLDER). Names are relative to the folder."""

    def __init__(self, address: str) -> None:
        found = re.fullmatch(rf"{objects.BUCKET}(?:/+(.*?))?/*", address)
        if found is None:
            raise ParamsError(f"RAYPATH_STORE is {address!r}", fix="write s3://BUCKET/FOLDER, or a folder's path")
        self.address = address
        self.endpoint = objects.endpoint()
        self._name, self._folder = found[1], found[2] or ""
        self._store = self._client()

    def _client(self, retries: int = objects.RETRIES, seconds: int = 120) -> Any:
        return objects.open_bucket(self._name, self._folder, retries, seconds)

    def check(self) -> None:
        """Raise UserError or Unavailable unless the server honours conditional puts; takes a second at most."""
        mark, quick = b'{"format": 1}\n', self._client(retries=3, seconds=20)
        # A put of an existing object must be rejected: records depend on it.
        if all(self._conditional(MARK, mark, "create", quick) for _ in range(2)):
            raise self._conditions_ignored("If-None-Match")
        # A put with an outdated ETag must be rejected: leases depend on it.
        if self._conditional(MARK, mark, {"e_tag": f'"{"0" * 32}"'}, quick):
            raise self._conditions_ignored("If-Match")

    def _conditions_ignored(self, condition: str) -> UserError:
        fix = "use a server that does, such as Amazon's, MinIO or Ceph; or a folder that all machines mount"
        return UserError(f"{self._where()} does not honour conditional puts ({condition})", fix=fix)

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and ETag; None when it does not exist."""
        import obstore

        def read() -> tuple[bytes, str]:
            found = obstore.get(self._store, name)
            return bytes(found.bytes()), str(found.meta["e_tag"])

        with contextlib.suppress(FileNotFoundError):
            return self._request(name, read)
        return None

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes; None when it does not exist."""
        import obstore

        with contextlib.suppress(FileNotFoundError):
            return int(self._request(name, lambda: obstore.head(self._store, name)["size"]))
        return None

    def put(self, name: str, data: bytes) -> None:
        """Write an object, replacing an existing one."""
        import obstore

        self._request(name, lambda: obstore.put(self._store, name, data))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless it exists. Returns True when it was written.

        A retried put whose first response was lost is rejected: False may also mean that it was written.
        """
        return self._conditional(name, data, "create", self._store)

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Write an object if it still has this ETag. Returns True when it was written, as `create` does."""
        return self._conditional(name, data, {"e_tag": tag}, self._store)

    def _conditional(self, name: str, data: bytes, mode: Any, store: Any) -> bool:
        import obstore

        tries = TRIES if store is self._store else 1
        try:
            self._request(name, lambda: obstore.put(store, name, data, mode=mode), tries)
        except _rejections():
            return False
        except FileNotFoundError:
            if mode == "create":
                # No S3 server responds 404 to a put that creates an object.
                raise UserError(f"{self._where()} is not an S3 server", fix="correct AWS_ENDPOINT_URL") from None
            return False
        return True

    def upload(self, path: Path, name: str) -> None:
        """Upload a file in parts and verify the object's size."""
        import obstore

        self._request(name, lambda: obstore.put(self._store, name, path, chunk_size=PART, max_concurrency=STREAMS))
        if self.size(name) != path.stat().st_size:
            raise Unavailable(f"{self._where()} stored only a part of {name}", fix="run the same command again")

    def download(self, name: str, path: Path, size: int) -> None:
        """Download an object of `size` bytes in parts. Raises FileNotFoundError, or OSError for a full disk."""
        import obstore

        def read(start: int, end: int) -> Any:
            if end - start == size:
                return obstore.get(self._store, name).bytes()
            return obstore.get_range(self._store, name, start=start, end=end)

        def part(start: int) -> None:
            end = min(start + PART, size)
            os.pwrite(file, self._request(name, lambda: read(start, end)), start)

        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if size:
                os.posix_fallocate(file, 0, size)
            with ThreadPoolExecutor(STREAMS) as pool:
                list(pool.map(part, range(0, size, PART)))
            os.fsync(file)
        finally:
            os.close(file)

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """Return `size` bytes of an object. Raises FileNotFoundError."""
        import obstore

        return self._request(name, lambda: bytes(obstore.get_range(self._store, name, start=start, length=size)))

    def open(self, name: str) -> BinaryIO:
        """Open an object as a seekable file, read by ranges. Raises FileNotFoundError."""
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(name)
        return open_ranges(lambda start, length: self.read_range(name, start, length), size)

    def names(self, folder: str) -> list[str]:
        """List the objects below a folder; the list may be outdated."""
        import obstore

        def read() -> list[str]:
            return [item["path"] for batch in obstore.list(self._store, f"{folder}/") for item in batch]

        return self._request(folder, read)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; missing ones are ignored."""
        import obstore

        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._request(name, lambda name=name: obstore.delete(self._store, name))  # type: ignore[misc]

    def _request(self, name: str, call: Callable[[], T], tries: int = TRIES) -> T:
        """Return the result of `call`, with the client's errors translated, except FileNotFoundError and rejections.

        The client retries throttled and failed requests itself, but not a response that was cut off.
        """
        from obstore.exceptions import BaseError

        def once() -> T:
            try:
                return call()
            except FileNotFoundError as error:
                if "NoSuchBucket" not in str(error):
                    raise
                what = f"{self._where()}: no such bucket"
                raise UserError(what, fix="create it, or correct RAYPATH_STORE") from None
            except BaseError as error:
                if isinstance(error, _rejections()):
                    raise
                log.debug("%s: %s", name, error)
                raise self._translate(error, name) from None

        return retry(once, tries - 1, base=0.2, jitter=True)

    def _where(self) -> str:
        return f"{self.address} at {self.endpoint}" if self.endpoint else self.address

    def _translate(self, error: Exception, name: str) -> RaypathError:
        return objects.translate_error(error, self.address, "" if name == MARK else name)


def _rejections() -> tuple[type[Exception], ...]:
    from obstore.exceptions import AlreadyExistsError, NotModifiedError, PreconditionError

    return AlreadyExistsError, PreconditionError, NotModifiedError
