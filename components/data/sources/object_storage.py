"""Objects in S3-compatible storage: how a bucket is opened, what an address stands for there, and copies of it here.

Credentials, region and endpoint are the usual AWS_* variables (or the machine's role); `AWS_ENDPOINT_URL` names another
server than Amazon's.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, ParamsError, RaypathError, Unavailable, UserError

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
BUCKET = r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
RETRIES = 12
"""Times that the client tries again what was throttled or broke."""
CHUNK = 8 << 20
"""Bytes that are held of an object on its way to a file."""


@dataclass(frozen=True)
class S3Object:
    """What a bucket says of an object."""

    key: str
    size: int
    tag: str
    """Of its content: another content has another one."""


class S3Objects:
    """What s3://BUCKET/KEY stands for: an object, those below a folder, or those that a glob matches."""

    def __init__(self, uri: str) -> None:
        found = re.fullmatch(rf"{BUCKET}/+(.+?)/*", uri)
        if found is None:
            raise ParamsError(f"got {uri}; wanted s3://BUCKET/KEY", fix="name a file, a folder or a glob in a bucket")
        self.uri, self._key = uri, found[2]
        self._bucket = open_bucket(found[1])

    def found(self) -> list[S3Object]:
        """The objects there are now, by name. Raises DataError where there is none."""
        with _user_errors(self.uri):
            there = self._one() or sorted(self._below(), key=lambda each: each.key)
        if not there:
            raise DataError(f"no object at {self.uri}; wanted one, a folder or a glob", fix="correct read.uri")
        return there

    def fetch(self, folder: Path) -> str:
        """Copy them below `folder`, unless an attempt before did; returns the address of the copies."""
        found = self.found()
        folder = folder / _digest(found)
        for each in found:
            path = folder / each.key
            if not (path.is_file() and path.stat().st_size == each.size):
                self._copy(each, path)
        return str(folder / self._key)

    def _one(self) -> list[S3Object]:
        import obstore

        with contextlib.suppress(FileNotFoundError):
            return [_object(obstore.head(self._bucket, self._key))]
        return []

    def _below(self) -> Iterator[S3Object]:
        import obstore

        above = self._key.split("/")
        while any(map(glob.has_magic, above)):
            above.pop()
        wanted = pattern(self._key) if glob.has_magic(self._key) else re.compile(re.escape(self._key) + "/.+")
        for batch in obstore.list(self._bucket, "/".join(above) or None):
            for each in map(_object, batch):
                names = each.key.split("/")[len(above) :]
                hidden = any(name.startswith((".", "_")) for name in names)
                if wanted.fullmatch(each.key) and not hidden and not each.key.endswith("/"):
                    yield each

    def _copy(self, each: S3Object, path: Path) -> None:
        import obstore

        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part, size = path.with_name(f".{path.name}.part"), 0
        with _user_errors(self.uri), part.open("wb") as file:
            got = obstore.get(self._bucket, each.key)
            if _object(got.meta).tag != each.tag:
                raise Unavailable(f"{self.uri} changed while it was read", fix="run the same line again")
            for chunk in got.stream(min_chunk_size=CHUNK):
                size += file.write(chunk)
        if size != each.size:
            raise Unavailable(f"{self.uri}: a part of {each.key} came", fix="run the same line again")
        part.replace(path)


def objects_fingerprint(uri: str) -> str:
    """Stands for what an address in a bucket has now: names, sizes and tags of its objects."""
    return _digest(S3Objects(uri).found())


def pattern(key: str) -> re.Pattern[str]:
    """What a glob matches: * and ? stay within a folder, ** does not, [...] as everywhere."""
    made = ""
    for part in re.findall(r"\*\*/|\*+|\?|\[[!^]?\]?[^]]*\]|.", key, re.DOTALL):
        if part == "**/":
            made += "(?:.*/)?"
        elif part.startswith("*"):
            made += "[^/]*"
        elif part.startswith("[") and len(part) > 1:
            made += "[" + re.sub(r"^[!^]", "^", part[1:-1]).replace("\\", "\\\\") + "]"
        else:
            made += "[^/]" if part == "?" else re.escape(part)
    return re.compile(made, re.DOTALL)


def endpoint() -> str:
    """The server that the environment names; "" for Amazon's."""
    return next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "")


def open_bucket(bucket: str, folder: str = "", retries: int | None = None, seconds: int = 120) -> Any:
    """obstore's client of a folder in a bucket. Raises UserError without the extra."""
    try:
        from obstore.store import S3Store
    except ImportError:
        raise UserError("s3:// needs the extra s3", fix="pip install 'raypath[s3]'") from None
    patience = {"max_retries": RETRIES if retries is None else retries, "retry_timeout": timedelta(seconds=seconds)}
    return S3Store(
        bucket,
        prefix=folder or None,
        client_options={"allow_http": endpoint().startswith("http://"), "connect_timeout": "5s"},
        retry_config=patience,
    )


def translate_error(error: Exception, address: str, name: str = "") -> RaypathError:
    """The client's error as one that a user can act on."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    text, where = str(error), f"{address} at {endpoint()}" if endpoint() else address
    code = re.search(r"<Code>(\w+)</Code>", text)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        reason = f" ({code[1]})" if code else ""
        fix = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what the bucket allows them"
        return UserError(f"{where} refuses these credentials{reason}", fix=fix)
    if re.search(r"169\.254\.1(69|70)\.|/latest/(api|meta-data)", text):
        # Workers have the environment in which Ray was started.
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, raypath down, then run the same line again"
        return UserError(f"{address}: no credentials", fix=fix)
    status = re.search(r"status code: (\d{3})", text)
    reason = code[1] if code else f"status {status[1]}" if status else "no connection"
    what = f"{where} does not answer ({reason})" + (f", for {name}" if name else "")
    return Unavailable(what, fix="check AWS_ENDPOINT_URL and the network, then run the same line again")


@contextlib.contextmanager
def _user_errors(uri: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (FileNotFoundError, BaseError) as error:
        if isinstance(error, FileNotFoundError) or "NoSuchBucket" in str(error):
            raise DataError(f"{uri}: there is no such bucket or object", fix="correct read.uri") from None
        raise translate_error(error, uri) from None


def _object(meta: Any) -> S3Object:
    return S3Object(meta["path"], int(meta["size"]), str(meta["e_tag"] or meta["last_modified"]))


def _digest(found: list[S3Object]) -> str:
    lines = "".join(f"{each.key}\0{each.size}\0{each.tag}\n" for each in found)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
