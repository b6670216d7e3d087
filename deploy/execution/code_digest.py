"""Digest of a component's source code: its file and, transitively, the modules of its own packages that it imports.

Syntax trees are hashed, so comments and layout do not count; any other change runs the step again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
from pathlib import Path


def source_digest(module: str) -> str:
    """Return the SHA-256 over the syntax trees of `module` and of the modules that it imports, transitively.

    Imports, also those inside functions, are followed below `raypath.components` and the module's top-level package.
    """
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(source_modules(module).items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def source_modules(module: str) -> dict[str, str]:
    """Return the digests of these modules by name."""
    roots = {LIBRARY} if module.startswith("raypath.") else {LIBRARY, module.partition(".")[0]}
    seen: dict[str, str] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        path = _file(name)
        if name in seen or path is None:
            continue
        seen[name], imports = _read(path, path.stat().st_mtime_ns)
        queue.extend(_within(imports, name, path, roots))
    return seen


LIBRARY = "raypath.components"
CLASS_PATH = re.compile(r"\w+(\.\w+)+:\w+")
"""A class that is loaded by name, such as a task: `raypath.components.tasks.regression:Regression`."""


@functools.lru_cache(maxsize=1024)
def _read(path: Path, mtime: int) -> tuple[str, tuple[tuple[int, str, str], ...]]:
    """Return the digest of the syntax tree and the imports as (level, module, name). mtime: invalidates the cache."""
    tree = ast.parse(path.read_bytes())
    imports: list[tuple[int, str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports += [(node.level, node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and CLASS_PATH.fullmatch(node.value):
            imports.append((0, node.value.partition(":")[0], ""))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports)


def _within(imports: tuple[tuple[int, str, str], ...], name: str, path: Path, roots: set[str]) -> list[str]:
    """Return the names of imported modules inside `roots`; `from a import b` may mean the module a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for level, module, item in imports:
        if level:
            above = package.split(".")[: len(package.split(".")) - level + 1]
            module = ".".join([*above, module] if module else above)
        if any(f"{module}.".startswith(f"{root}.") for root in roots):
            found += [module, f"{module}.{item}"] if item else [module]
    return found


@functools.lru_cache(maxsize=1024)
def _file(name: str) -> Path | None:
    """Return the file of a module, None when there is none. Unlike `find_spec`, this does not import its parents."""
    root, _, rest = name.partition(".")
    path = _root(root)
    for part in rest.split(".") if rest else []:
        if path is None or path.name != "__init__.py":
            return None
        package, module = path.parent / part / "__init__.py", path.parent / f"{part}.py"
        path = package if package.is_file() else module if module.is_file() else None
    return path


def _root(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)
