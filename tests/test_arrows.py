"""Layout of the source: import order, import cycles, folder and file sizes, and cheap imports.

Imports inside functions and under TYPE_CHECKING count for the order and for cycles: they are dependencies as well.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("components", "workflows", "deploy")
"""In import order: a package imports only itself and those before it."""
ORDER = {
    "components": (
        {"core"},
        {"privacy", "encryption"},
        {"tracking", "evaluation", "models"},
        {"tasks", "data"},
        {"inspection", "reports"},
        {"training", "registry"},
        {"compliance", "risk"},
        {"tuning", "inference", "configuration", "cards", "export", "homomorphic"},
        {"serving"},
        {"steps"},
    ),
    "deploy": (
        {"store"},
        {"execution"},
        {"launchers"},
        {"console"},
        {"local", "remote"},
        {"ray_cluster", "kubernetes"},
        {"kubeflow"},
        {"triggers"},
        {"api"},
        {"cli"},
    ),
}
"""Levels of the folders of a package: a folder imports only from its own level and the levels before it."""
HEAVY = {"ray", "torch", "mlflow", "transformers", "pyarrow", "pandas", "sklearn", "matplotlib", "numpy"}
MAX_LINES, MAX_ENTRIES = 300, 14
SOURCES = sorted(p.relative_to(ROOT) for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
MODULES = {".".join(("raypath", *path.with_suffix("").parts)).removesuffix(".__init__"): path for path in SOURCES}


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """Return the syntax tree of each file; most processes of the tests need none."""
    return {path: ast.parse((ROOT / path).read_text(encoding="utf-8")) for path in SOURCES}


def imported(path: Path, tree: ast.AST) -> Iterator[str]:
    """Yield the absolute names of all modules, or of names in them, that a file imports anywhere."""
    package = ("raypath", *path.parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def file_of(name: str) -> Path | None:
    """Return the file of a module of Raypath, given the module's name or that of something in it."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return MODULES.get(name)


def dependencies() -> dict[Path, set[Path]]:
    """Map each file to the files that it imports; packages themselves (`__init__.py`) are left out."""
    edges = defaultdict(set)
    for path, tree in trees().items():
        targets = {file_of(name) for name in imported(path, tree)} - {None, path}
        edges[path] = {target for target in targets if target is not None and target.name != "__init__.py"}
    return dict(edges)


def find_cycle(edges: Mapping[Path, set[Path]]) -> list[str]:
    """Return the files of one import cycle; empty if there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return [str(path) for path in error.args[1]]
    return []


def level(path: Path) -> int | None:
    """Return the level of a file in the order of its package; None for the packages themselves and workflows."""
    package, *rest = path.parts
    if package not in ORDER or rest == ["__init__.py"]:
        return None
    folder = "steps" if package == "components" and len(rest) == 1 else rest[0].removesuffix(".py")
    return next(n for n, folders in enumerate(ORDER[package]) if folder in folders)


def against_order(edges: Mapping[Path, set[Path]]) -> list[str]:
    """Return the imports that go up, from a package or a level to a later one."""
    found = []
    for path, targets in edges.items():
        for target in targets:
            here, there = PACKAGES.index(path.parts[0]), PACKAGES.index(target.parts[0])
            low, high = level(path), level(target)
            if there > here or (there == here and low is not None and high is not None and high > low):
                found.append(f"{path} -> {target}")
    return sorted(found)


def test_every_folder_has_a_level() -> None:
    unknown = []
    for path in SOURCES:
        try:
            level(path)
        except StopIteration:
            unknown.append(str(path))
    assert unknown == []


def test_imports_follow_the_order() -> None:
    assert against_order(dependencies()) == []


def test_there_are_no_import_cycles() -> None:
    assert find_cycle(dependencies()) == []


def test_checks_of_imports_see_late_and_typing_imports() -> None:
    low, high = Path("components/core/errors.py"), Path("components/serving/spec.py")
    late = ast.parse("def f():\n    from raypath.components.serving import spec")
    typing = ast.parse("if TYPE_CHECKING:\n    from ..serving.spec import Spec")
    for tree in (late, typing):
        edges = {low: {target for name in imported(low, tree) if (target := file_of(name))}, high: {low}}
        assert edges[low] == {high}
        assert against_order(edges) == [f"{low} -> {high}"]
        assert find_cycle(edges)


def test_core_imports_only_light_packages() -> None:
    for path, tree in trees().items():
        if path.parts[:2] == ("components", "core") and path.name != "arrays.py":
            assert not {name.partition(".")[0] for name in imported(path, tree)} & (HEAVY | {"rich"}), path


@pytest.mark.parametrize(
    "code",
    [
        "import raypath",
        "from raypath.components.core import arrays, columns, labels",
        *(
            f"from raypath.workflows.{name} import {name} as w; w.trace()"
            for name in (
                *("text_classification", "multi_label", "regression", "pretraining", "batch_prediction"),
                *("chat", "preference"),
            )
        ),
    ],
)
def test_a_traced_workflow_imports_nothing_heavy(code: str) -> None:
    code = f"import sys; {code}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_files_and_folders_are_small() -> None:
    sizes = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: size for path, size in sizes.items() if size > MAX_LINES} == {}
    entries: dict[str, set[str]] = defaultdict(set)
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], capture_output=True, text=True, cwd=ROOT, check=False)
    for file in tracked.stdout.split() or map(str, SOURCES):
        for folder in Path(file).parents[:-1]:
            entries[str(folder)].add(Path(file).relative_to(folder).parts[0])
    # The steps are in `components` itself, one file each.
    assert {f: len(e) for f, e in entries.items() if len(e) > MAX_ENTRIES and f != "components"} == {}


def test_docstrings_say_what_a_thing_is_or_does() -> None:
    """A docstring begins with a noun or an imperative verb, not with "What", "Whether" or "Where"."""
    questions = ("What", "Whether", "Where", "Of", "How", "Which", "Who")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{path}: {text.splitlines()[0]}"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, documented) and (text := ast.get_docstring(node))
        if text.split(maxsplit=1)[0] in questions
    ]
    assert found == []
