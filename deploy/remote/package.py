"""What a cluster is sent: the files that git tracks below this folder, and our own packages where they lie elsewhere.

Nothing else leaves this machine: data, keys and notes that git does not track stay here. A zip of the same files is
the same bytes, so Ray takes it once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import raypath
from raypath.components.core.errors import UserError
from raypath.components.core.graph import Graph
from raypath.components.core.params import Params
from raypath.components.core.uris import local_files, scheme

MOST = 100 << 20
"""Bytes that Ray takes over HTTP."""
TIMES = "raypath-times.json"
_PACKAGE = Path(raypath.__file__).parent


@dataclass(frozen=True)
class Upload:
    """A zip, its name by content, and what a user should know of it."""

    name: str
    data: bytes
    warnings: tuple[str, ...] = ()


def pack(folder: Path, graph: Graph) -> Upload:
    """Zip what git tracks in `folder`. Raises UserError where the run would miss a file there, or for too much."""
    tracked = _git(folder, "ls-files", "-z")
    ours = {f"raypath/{p.relative_to(_PACKAGE).as_posix()}": p for p in _ours(_PACKAGE)}
    # Raypath's own checkout tracks the same files under other names.
    there = {path.resolve() for path in ours.values()}
    found = {name: folder / name for name in tracked or [] if (folder / name).is_file()}
    files = {name: path for name, path in found.items() if path.resolve() not in there} | ours
    warnings = _check_needed(folder, graph, files, tracked is None)
    total = sum(path.stat().st_size for path in files.values())
    if total > MOST:
        big = ", ".join(sorted(files, key=lambda name: -files[name].stat().st_size)[:3])
        what = f"git tracks {total >> 20} MiB here ({big} most of it), and Ray takes {MOST >> 20}"
        raise UserError(what, fix="keep data out of git, where the cluster's nodes reach it, such as s3://")
    data = _zip(files)
    return Upload(f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:32]}.zip", data, tuple(warnings))


def check_visible_to_pods(graph: Graph, *mounts: str) -> None:
    """Raise UserError for files of this machine that no pod would find. mounts: folders that pods have."""
    from raypath.components.read import ReadParams

    settings = [argument for node in graph.nodes for argument in node.arguments if isinstance(argument, Params)]
    for each in settings:
        for uri in (uri for uri in each.sources() if scheme(uri) == ""):
            path = Path(uri.removeprefix("file://"))
            if any(mount.startswith("/") and path.is_relative_to(mount) for mount in mounts):
                continue
            if isinstance(each, ReadParams) or _may_be_path(uri):
                what = f"{uri} is on this machine, and pods do not see it"
                raise UserError(what, fix="put it into a bucket and name s3://BUCKET/KEY")


def restore_times(folder: Path) -> None:
    """Give uploaded files the change times that they had, which tell whether a file of data is still the same."""
    try:
        times: dict[str, int] = json.loads((folder / TIMES).read_text("utf-8"))
    except (OSError, ValueError):
        return
    for name, time in times.items():
        if (folder / name).is_file():
            os.utime(folder / name, ns=(time, time))


def _ours(folder: Path) -> Iterator[Path]:
    """Files of this package; in a checkout its folders are symbolic links, which `rglob` does not follow."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            yield from _ours(path)
        elif path.is_file() and path.suffix not in (".pyc", ".pyo"):
            yield path


def _zip(files: Mapping[str, Path]) -> bytes:
    times = {name: path.stat().st_mtime_ns for name, path in sorted(files.items())}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, path in sorted(files.items()):
            _add(zipped, name, path.read_bytes())
        _add(zipped, TIMES, json.dumps(times).encode())
    return buffer.getvalue()


def _add(zipped: zipfile.ZipFile, name: str, data: bytes) -> None:
    # No times and owners of this machine: the same files are the same bytes.
    info = zipfile.ZipInfo(name)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    zipped.writestr(info, data)


def _check_needed(folder: Path, graph: Graph, files: Mapping[str, Path], bare: bool) -> list[str]:
    """Refuse what the run would surely miss; returns warnings of what it may miss."""
    there = {path.resolve() for path in files.values()}
    why = f"{folder} is in no git repository" if bare else "git does not track it"
    warnings = []
    for uri in _addresses(graph):
        found = [path for path in local_files(uri) if path.resolve() not in there]
        if not found:
            continue
        if not Path(uri.removeprefix("file://")).expanduser().is_absolute():
            fix = f"git add {uri}, or put it where the cluster's nodes reach it and name that place"
            raise UserError(f"{uri} would not be on the cluster: {why}", fix=fix)
        warnings.append(f"{uri} is not sent; the run needs it on the cluster's nodes under the same path")
    for path in _modules(folder):
        if path not in there:
            name = path.relative_to(folder.resolve())
            raise UserError(f"{name} would not be on the cluster: {why}", fix=f"git add {name}")
    return warnings + _left_behind(folder)


def _addresses(graph: Graph) -> list[str]:
    """Local addresses that the settings name, relative ones first."""
    found = [str(v) for v in graph.params.flat().values() if isinstance(v, str) and v and scheme(v) == ""]
    return sorted((v for v in dict.fromkeys(found) if _may_be_path(v)), key=os.path.isabs)


def _may_be_path(value: str) -> bool:
    try:
        return bool(local_files(value))
    except (OSError, ValueError):
        return False


def _modules(folder: Path) -> list[Path]:
    """Files of this folder that were imported to draw the graph: those of the workflow and its components."""
    root, inner = folder.resolve(), Path(sys.prefix).resolve()
    named = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    # A name that is no file is not a source: torch's `ops` says "_ops.py".
    files = [path for path in (Path(name).resolve() for name in named if name) if path.is_file()]
    files = [path for path in files if path.is_relative_to(root)]
    return [path for path in files if not path.is_relative_to(inner) and "site-packages" not in path.parts]


def _left_behind(folder: Path) -> list[str]:
    untracked = _git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--", "*.py", "*.yaml", "*.yml") or []
    if not untracked:
        return []
    more = f" and {len(untracked) - 3} more" if len(untracked) > 3 else ""
    return [f"not sent, since git does not track them: {', '.join(untracked[:3])}{more}"]


def _git(folder: Path, *args: str) -> list[str] | None:
    """The names that git prints; None outside of a repository, or without git."""
    try:
        done = subprocess.run(["git", *args], cwd=folder, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return [name.decode() for name in done.stdout.split(b"\0") if name]
