"""A folder in an S3-compatible bucket, with errors a user can act on.

Credentials, region and endpoint are the usual AWS_* variables (or the machine's role); `AWS_ENDPOINT_URL` names another
server than Amazon's. Every request is signed over the SHA-256 of its body, so a server takes no part that was torn.
Throttling, 5xx and broken connections are tried again with growing pauses.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from raypath.components.core.errors import ParamsError, RaypathError, Unavailable, UserError
from raypath.components.data.sources import object_storage as objects

PART = 16 << 20
"""Bytes of a part of a large file, which travel and are tried again alone."""
STREAMS = 4
"""Parts on their way at the same time."""
TRIES = 5
"""Times that an exchange which broke off is tried."""
MARK = "raypath.json"
T = TypeVar("T")
log = logging.getLogger("raypath.store")


class Bucket:
    """Objects below `address` (s3://BUCKET/FOLDER). Names are relative to it."""

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
        """Raise UserError or Unavailable unless puts keep to their conditions here; a second at most."""
        mark, quick = b'{"format": 1}\n', self._client(retries=3, seconds=20)
        # What is there already is refused: this is the promise that records rest on.
        if all(self._conditional(MARK, mark, "create", quick) for _ in range(2)):
            raise self._careless("If-None-Match")
        # And so is what somebody else has replaced since: on that leases rest.
        if self._conditional(MARK, mark, {"e_tag": f'"{"0" * 32}"'}, quick):
            raise self._careless("If-Match")

    def _careless(self, condition: str) -> UserError:
        fix = "use a server that does, such as Amazon's, MinIO or Ceph; or a folder that all machines mount"
        return UserError(f"{self._where()} does not honour conditional puts ({condition})", fix=fix)

    def get(self, name: str) -> tuple[bytes, str] | None:
        """An object's bytes and its tag; None where there is none."""
        import obstore

        def read() -> tuple[bytes, str]:
            found = obstore.get(self._store, name)
            return bytes(found.bytes()), str(found.meta["e_tag"])

        with contextlib.suppress(FileNotFoundError):
            return self._ask(name, read)
        return None

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""
        import obstore

        with contextlib.suppress(FileNotFoundError):
            return int(self._ask(name, lambda: obstore.head(self._store, name)["size"]))
        return None

    def put(self, name: str, data: bytes) -> None:
        """Write an object, whatever is there."""
        import obstore

        self._ask(name, lambda: obstore.put(self._store, name, data))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one; whether it was written.

        A put whose answer was lost is refused when it is tried again: False may also mean that it was.
        """
        return self._conditional(name, data, "create", self._store)

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Write an object if it still has this tag; whether it was written, as with `create`."""
        return self._conditional(name, data, {"e_tag": tag}, self._store)

    def _conditional(self, name: str, data: bytes, mode: Any, store: Any) -> bool:
        import obstore

        tries = TRIES if store is self._store else 1
        try:
            self._ask(name, lambda: obstore.put(store, name, data, mode=mode), tries)
        except _refusals():
            return False
        except FileNotFoundError:
            if mode == "create":
                # What is to be made cannot be missing: no S3 answers so.
                raise UserError(f"{self._where()}: there is no S3", fix="correct AWS_ENDPOINT_URL") from None
            return False
        return True

    def upload(self, path: Path, name: str) -> None:
        """Copy a file to an object, in parts, and look that all of it is there."""
        import obstore

        self._ask(name, lambda: obstore.put(self._store, name, path, chunk_size=PART, max_concurrency=STREAMS))
        if self.size(name) != path.stat().st_size:
            raise Unavailable(f"{self._where()} kept only a part of {name}", fix="run the same line again")

    def download(self, name: str, path: Path, size: int) -> None:
        """Copy an object of `size` bytes to a new file, in parts. Raises FileNotFoundError, OSError for a full disk."""
        import obstore

        def read(start: int, end: int) -> Any:
            if end - start == size:
                return obstore.get(self._store, name).bytes()
            return obstore.get_range(self._store, name, start=start, end=end)

        def part(start: int) -> None:
            end = min(start + PART, size)
            os.pwrite(file, self._ask(name, lambda: read(start, end)), start)

        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if size:
                os.posix_fallocate(file, 0, size)
            with ThreadPoolExecutor(STREAMS) as pool:
                list(pool.map(part, range(0, size, PART)))
            os.fsync(file)
        finally:
            os.close(file)

    def names(self, folder: str) -> list[str]:
        """The objects below a folder, as a list that may lag behind."""
        import obstore

        def read() -> list[str]:
            return [item["path"] for batch in obstore.list(self._store, f"{folder}/") for item in batch]

        return self._ask(folder, read)

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there do not matter."""
        import obstore

        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._ask(name, lambda name=name: obstore.delete(self._store, name))  # type: ignore[misc]

    def _ask(self, name: str, call: Callable[[], T], tries: int = TRIES) -> T:
        """What `call` answers, with the client's errors as ours; FileNotFoundError and refusals are the caller's.

        The client itself tries again what is throttled or broken, but not an answer that was cut off: we do.
        """
        from obstore.exceptions import BaseError

        for attempt in range(1, tries + 1):
            try:
                return call()
            except FileNotFoundError as error:
                if "NoSuchBucket" not in str(error):
                    raise
                what = f"{self._where()}: there is no such bucket"
                raise UserError(what, fix="make it, or correct RAYPATH_STORE") from None
            except BaseError as error:
                if isinstance(error, _refusals()):
                    raise
                known = self._named(error, name)
                log.debug("%s: %s", name, error)
                if attempt == tries or not known.retry:
                    raise known from None
                time.sleep(0.1 * 2**attempt * random.random())
        raise AssertionError

    def _where(self) -> str:
        return f"{self.address} at {self.endpoint}" if self.endpoint else self.address

    def _named(self, error: Exception, name: str) -> RaypathError:
        return objects.translate_error(error, self.address, "" if name == MARK else name)


def _refusals() -> tuple[type[Exception], ...]:
    from obstore.exceptions import AlreadyExistsError, NotModifiedError, PreconditionError

    return AlreadyExistsError, PreconditionError, NotModifiedError
