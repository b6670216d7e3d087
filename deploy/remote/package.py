"""Package the code that a Ray cluster needs: the files that git tracks in this folder, and Raypath itself.

Nothing else leaves this machine: data, keys and other files that git does not track stay here. The same files give the
same bytes, so a cluster receives a package only once.
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
from raypath.deploy.remote.shadowing import check_no_shadowing

MAX_BYTES = 100 << 20
"""Limit of Ray's upload over HTTP."""
TIMES = "raypath-times.json"
HOME = ".raypath"
"""Folder that is never packed, tracked or not: it has artifacts, API keys and tokens."""
_PACKAGE = Path(raypath.__file__).parent


@dataclass(frozen=True)
class Package:
    """A zip, its name by content, and warnings for the user."""

    name: str
    data: bytes
    warnings: tuple[str, ...] = ()


def pack(folder: Path, graph: Graph, home: Path | None = None) -> Package:
    """Zip the files that git tracks in `folder`, except a home, whatever its name.

    Raises UserError for a file that is missing or shadows a package.
    """
    tracked = _git(folder, "ls-files", "-z")
    own = {f"raypath/{p.relative_to(_PACKAGE).as_posix()}": p for p in _package_files(_PACKAGE)}
    # Raypath's own checkout tracks the same files under other names.
    there = {path.resolve() for path in own.values()}
    found = {name: folder / name for name in tracked or [] if (folder / name).is_file()}
    found = {name: path for name, path in found.items() if home is None or not path.is_relative_to(home.absolute())}
    files = {n: p for n, p in found.items() if p.resolve() not in there and HOME not in Path(n).parts} | own
    check_no_shadowing(folder, (name for name in files if name not in own))
    warnings = _check_needed(folder, graph, files, tracked is None)
    total = sum(path.stat().st_size for path in files.values())
    if total > MAX_BYTES:
        big = ", ".join(sorted(files, key=lambda name: -files[name].stat().st_size)[:3])
        what = f"git tracks {total >> 20} MiB here ({big} most of it), and Ray takes {MAX_BYTES >> 20}"
        raise UserError(what, fix="keep data out of git, where the cluster's nodes reach it, such as s3://")
    data = _zip(files)
    return Package(f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:32]}.zip", data, tuple(warnings))


def check_visible_to_pods(graph: Graph, *mounts: str) -> None:
    """Raise UserError for local files that pods do not see. mounts: folders that pods mount."""
    from raypath.components.read import ReadParams

    settings = [argument for node in graph.nodes for argument in node.arguments if isinstance(argument, Params)]
    for each in settings:
        for uri in (uri for uri in each.sources() if scheme(uri) == ""):
            path = Path(uri.removeprefix("file://"))
            if any(mount.startswith("/") and path.is_relative_to(mount) for mount in mounts):
                continue
            if isinstance(each, ReadParams) or _may_be_path(uri):
                what = f"{uri} is on this machine, and pods do not see it"
                raise UserError(what, fix="upload it and set s3://BUCKET/KEY")


def restore_times(folder: Path) -> None:
    """Restore the modification times of uploaded files, by which a data file counts as unchanged."""
    try:
        times: dict[str, int] = json.loads((folder / TIMES).read_text("utf-8"))
    except (OSError, ValueError):
        return
    for name, time in times.items():
        if (folder / name).is_file():
            os.utime(folder / name, ns=(time, time))


def _package_files(folder: Path) -> Iterator[Path]:
    """Files of the package raypath. In a checkout its folders are symbolic links, which `rglob` does not follow."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            yield from _package_files(path)
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
    # Fixed times and owners, so that the same files give the same bytes.
    info = zipfile.ZipInfo(name)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    zipped.writestr(info, data)


def _check_needed(folder: Path, graph: Graph, files: Mapping[str, Path], bare: bool) -> list[str]:
    """Raise UserError for a file that the run needs and the package lacks; return warnings of possible ones."""
    there = {path.resolve() for path in files.values()}
    why = f"{folder} is in no git repository" if bare else "git does not track it"
    warnings = []
    for uri in _local_paths(graph):
        found = [path for path in local_files(uri) if path.resolve() not in there]
        if not found:
            continue
        if not Path(uri.removeprefix("file://")).expanduser().is_absolute():
            fix = f"git add {uri}, or move it to storage that the cluster's nodes reach"
            raise UserError(f"{uri} would not be on the cluster: {why}", fix=fix)
        warnings.append(f"{uri} is not sent; the run needs it on the cluster's nodes under the same path")
    for path in _modules(folder):
        if path not in there:
            name = path.relative_to(folder.resolve())
            raise UserError(f"{name} would not be on the cluster: {why}", fix=f"git add {name}")
    return warnings + _left_behind(folder)


def _local_paths(graph: Graph) -> list[str]:
    """Local paths in the settings, relative ones first."""
    found = [str(v) for v in graph.params.flat().values() if isinstance(v, str) and v and scheme(v) == ""]
    return sorted((v for v in dict.fromkeys(found) if _may_be_path(v)), key=os.path.isabs)


def _may_be_path(value: str) -> bool:
    try:
        # Any setting of text may be a path, but for a sign such as the decimal point, which is also this folder.
        return any(map(str.isalnum, value)) and bool(local_files(value))
    except (OSError, ValueError):
        return False


def _modules(folder: Path) -> list[Path]:
    """Modules of this folder that the workflow has imported: its own and those of its components."""
    root, inner = folder.resolve(), Path(sys.prefix).resolve()
    named = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    # A module may name a file that does not exist, as torch.ops does.
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
    """File names printed by git; None outside a repository, or without git."""
    try:
        done = subprocess.run(["git", *args], cwd=folder, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return [name.decode() for name in done.stdout.split(b"\0") if name]
