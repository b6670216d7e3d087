"""Object storage (S3 and compatible servers, Google Cloud, Azure): list the objects of a URI, and download them.

Credentials, region and endpoint come from the usual variables AWS_*, GOOGLE_* and AZURE_*, or the machine's role;
`AWS_ENDPOINT_URL`, `GOOGLE_BASE_URL` and `AZURE_STORAGE_ENDPOINT` select another server.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, ParamsError, RaypathError, Unavailable, UserError
from raypath.components.core.uris import BUCKETS, DELTA_LOG, scheme
from raypath.components.data.sources.data_file import SourceObject

ENDPOINTS = {
    "s3://": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs://": ("GOOGLE_BASE_URL",),
    "az://": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "AZURITE_BLOB_STORAGE_URL"),
}
"""Variables with the URL of another server, by scheme."""
_NAME = r"([a-z0-9][a-z0-9._-]{1,61}[a-z0-9])"
BUCKET = r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
CREDENTIALS = {
    "s3://": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs://": "GOOGLE_APPLICATION_CREDENTIALS",
    "az://": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""Variables with the credentials of each scheme."""
RETRIES = 12
"""Retries of the client for throttled or broken requests."""
CHUNK = 8 << 20
"""Bytes of an object in memory while it is downloaded."""


@dataclass(frozen=True)
class StoredObject:
    """Metadata of an object."""

    key: str
    size: int
    tag: str
    """ETag, or the time of the last modification: changes with the content."""


class Objects:
    """The objects of s3://, gs:// or az://BUCKET/KEY: one object, those below a folder, or those that match a glob."""

    def __init__(self, uri: str) -> None:
        match = re.fullmatch(rf"({'|'.join(BUCKETS)}){_NAME}/+(.+?)/*", uri)
        if match is None:
            wanted = f"{scheme(uri)}BUCKET/KEY"
            raise ParamsError(f"got {uri}; wanted {wanted}", fix="name a file, a folder or a glob in a bucket")
        self.uri, self._key = uri, match[3]
        self._root, self._copies = f"{match[1]}{match[2]}", dict[Path, StoredObject]()
        self._bucket = open_bucket(match[2], provider=match[1])

    def listed(self) -> list[StoredObject]:
        """List the objects, sorted by key. Raises DataError if there are none."""
        with _user_errors(self.uri):
            objects = self._single() or sorted(self._matching(), key=lambda each: each.key)
        if not objects:
            raise DataError(f"no object at {self.uri}; wanted an object, a folder or a glob", fix="correct read.uri")
        return objects

    def fetch(self, folder: Path) -> str:
        """Download them to `folder`, unless an earlier attempt did; returns the path of the copies."""
        objects = self.listed()
        folder = folder / _digest(objects)
        for each in objects:
            path = folder / each.key
            self._copies[path] = each
            if not (path.is_file() and path.stat().st_size == each.size):
                self._download(each, path)
        return str(folder / self._key)

    def source_of(self, path: Path) -> SourceObject | None:
        """Return the object of which a file was fetched; None for a folder."""
        each = self._copies.get(path)
        return None if each is None else SourceObject(f"{self._root}/{each.key}", each.size, each.tag)

    def _single(self) -> list[StoredObject]:
        import obstore

        with contextlib.suppress(FileNotFoundError):
            return [_object(obstore.head(self._bucket, self._key))]
        return []

    def _matching(self) -> Iterator[StoredObject]:
        import obstore

        prefix = self._key.split("/")
        while any(map(glob.has_magic, prefix)):
            prefix.pop()
        wanted = glob_pattern(self._key) if glob.has_magic(self._key) else re.compile(re.escape(self._key) + "/.+")
        for batch in obstore.list(self._bucket, "/".join(prefix) or None):
            for each in map(_object, batch):
                names = each.key.split("/")[len(prefix) :]
                if DELTA_LOG in names and glob.has_magic(self._key):
                    fix = "name the folder of the table in read.uri"
                    raise DataError(f"{self.uri} has files of a Delta table", fix=fix)
                hidden = any(name.startswith((".", "_")) and name != DELTA_LOG for name in names)
                if wanted.fullmatch(each.key) and not hidden and not each.key.endswith("/"):
                    yield each

    def _download(self, each: StoredObject, path: Path) -> None:
        import obstore

        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary, size = path.with_name(f".{path.name}.part"), 0
        with _user_errors(self.uri), temporary.open("wb") as file:
            response = obstore.get(self._bucket, each.key)
            if _object(response.meta).tag != each.tag:
                raise Unavailable(f"{self.uri} changed during the download", fix="run the command again")
            for chunk in response.stream(min_chunk_size=CHUNK):
                size += file.write(chunk)
        if size != each.size:
            raise Unavailable(
                f"{self.uri}: got {size:,} of {each.size:,} bytes of {each.key}", fix="run the command again"
            )
        temporary.replace(path)


def download(source: SourceObject, path: Path) -> None:
    """Download an object. Raises a RaypathError, such as Unavailable if it is no longer the same."""
    objects = Objects(source.uri)
    objects._download(StoredObject(objects._key, source.size, source.tag), path)


def objects_fingerprint(uri: str) -> str:
    """Digest of the keys, sizes and tags of the objects that a URI of a bucket has now."""
    return _digest(Objects(uri).listed())


def glob_pattern(key: str) -> re.Pattern[str]:
    """Compile a glob: * and ? match within a folder, ** across folders, [...] a character class."""
    pattern = ""
    for token in re.findall(r"\*\*/|\*+|\?|\[[!^]?\]?[^]]*\]|.", key, re.DOTALL):
        if token == "**/":
            pattern += "(?:.*/)?"
        elif token.startswith("*"):
            pattern += "[^/]*"
        elif token.startswith("[") and len(token) > 1:
            pattern += "[" + re.sub(r"^[!^]", "^", token[1:-1]).replace("\\", "\\\\") + "]"
        else:
            pattern += "[^/]" if token == "?" else re.escape(token)
    return re.compile(pattern, re.DOTALL)


def endpoint(provider: str = "s3://") -> str:
    """Endpoint URL from the environment; "" for the provider's own."""
    return next((os.environ[name] for name in ENDPOINTS[provider] if os.environ.get(name)), "")


def open_bucket(
    bucket: str, folder: str = "", retries: int | None = None, seconds: int = 120, provider: str = "s3://"
) -> Any:
    """Open an obstore client of a folder in a bucket. Raises UserError if the extra `s3` is not installed."""
    try:
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError:
        raise UserError(f"{provider} needs the extra s3", fix="pip install 'raypath[s3]'") from None
    kind = {"s3://": S3Store, "gs://": GCSStore, "az://": AzureStore}[provider]
    retry = {"max_retries": RETRIES if retries is None else retries, "retry_timeout": timedelta(seconds=seconds)}
    options = {"allow_http": endpoint(provider).startswith("http://"), "connect_timeout": "5s"}
    try:
        return kind(bucket, prefix=folder or None, client_options=options, retry_config=retry)
    except obstore_errors() as error:
        what = f"{provider}{bucket} cannot be opened ({str(error).splitlines()[0][:120]})"
        raise UserError(what, fix=f"set {CREDENTIALS[provider]}") from None


def obstore_errors() -> type[Exception]:
    """Return the base class of the client's errors."""
    from obstore.exceptions import BaseError

    return BaseError


def translate_error(error: Exception, address: str, name: str = "") -> RaypathError:
    """Translate an error of the client: UserError for credentials, permissions and keys, else Unavailable."""
    from obstore.exceptions import InvalidPathError, PermissionDeniedError, UnauthenticatedError

    own = scheme(address) if scheme(address) in BUCKETS else "s3://"
    text, where = str(error), f"{address} at {endpoint(own)}" if endpoint(own) else address
    code = re.search(r"<Code>(\w+)</Code>", text)
    if isinstance(error, InvalidPathError):
        key = re.search(r'parsing Path "(.*?)":', text)
        what = f"{address} has an object whose key is not a path" + (f": {key[1]}" if key else "")
        return UserError(what, fix="rename or delete the object; .. and // are not allowed in keys")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        reason = f" ({code[1]})" if code else ""
        fix = f"check {CREDENTIALS[own]}, and the permissions on the bucket"
        return UserError(f"{where} rejects these credentials{reason}", fix=fix)
    if re.search(r"169\.254\.1(69|70)\.|/latest/(api|meta-data)", text):
        # Workers inherit the environment in which Ray was started.
        fix = f"set {CREDENTIALS[own]}, run `raypath down`, then run the command again"
        return UserError(f"{address}: no credentials", fix=fix)
    status = re.search(r"status code: (\d{3})", text)
    reason = code[1] if code else f"status {status[1]}" if status else "no connection"
    what = f"{where} does not respond ({reason})" + (f", for {name}" if name else "")
    names = ENDPOINTS[own]
    variable = next((name for name in names if os.environ.get(name)), names[0])
    return Unavailable(what, fix=f"check {variable} and the network, then run the command again")


@contextlib.contextmanager
def _user_errors(uri: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (FileNotFoundError, BaseError) as error:
        if isinstance(error, FileNotFoundError) or re.search("NoSuchBucket|ContainerNotFound", str(error)):
            raise DataError(f"{uri}: no such bucket or object", fix="correct read.uri") from None
        raise translate_error(error, uri) from None


def _object(meta: Any) -> StoredObject:
    # Azure quotes the tag of an object, and not those of a list.
    return StoredObject(meta["path"], int(meta["size"]), str(meta["e_tag"] or meta["last_modified"]).strip('"'))


def _digest(objects: Sequence[StoredObject]) -> str:
    lines = "".join(f"{each.key}\0{each.size}\0{each.tag}\n" for each in objects)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
