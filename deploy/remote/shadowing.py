"""Check that no module of the user's folder takes the place of an installed one on a Ray cluster.

Ray puts the files of a job in front of the module search path of every process, before any code of Raypath runs there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path, PurePosixPath

from raypath.components.core.errors import UserError


def check_no_shadowing(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError for a module that has the name of one of Python's or of Raypath's dependencies.

    names: relative paths of the files that are sent.
    """
    modules = {_module(PurePosixPath(name)): name for name in sorted(names, reverse=True)}
    elsewhere = [path for path in sys.path if path and Path(path).resolve() != folder.resolve()]
    # `test` is in the standard library for Python's own tests; nothing imports it.
    standard = sys.stdlib_module_names - {"test"}
    found = [name for name in modules if name in standard or (name and PathFinder.find_spec(name, elsewhere))]
    if not found:
        return
    needed = standard | _needed()
    for name in sorted(needed.intersection(found) - {"raypath", "tests"}):
        what = f"{modules[name]} would be imported on the cluster in place of the installed module {name}"
        raise UserError(what, fix="rename it")


def _module(path: PurePosixPath) -> str:
    """Name of the top-level module that a file makes importable, or ""."""
    if len(path.parts) == 1:
        return path.stem if path.suffix == ".py" else ""
    return path.parts[0] if path.parts[1:] == ("__init__.py",) else ""


def _needed() -> set[str]:
    """Top-level modules of the distributions that Raypath depends on, directly or not."""
    seen, waiting = set[str](), ["raypath"]
    while waiting:
        name = _normal(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            waiting += metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
    return {module for module, owners in metadata.packages_distributions().items() if seen & set(map(_normal, owners))}


def _normal(requirement: str) -> str:
    """Normalized name of a distribution or of a requirement."""
    match = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", match[0] if match else "").lower()
