"""`raypath init`: a project of one's own, with a workflow, a component and its test, settings and example data."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import keyword
import os
import random
import re
import shlex
import string
import sys
import unicodedata
from pathlib import Path

from raypath.components.core.errors import ParamsError
from raypath.deploy.cli.project.schema import editor_line, schema_of

TEMPLATES = Path(__file__).parent / "templates"
ROWS = 240
"""Rows of example data."""
WORDS = {
    "good": ["crisp", "fresh", "lovely", "ideal", "tasty", "generous"],
    "bad": ["stale", "broken", "late", "bland", "soggy", "overpriced"],
}


def init_project(folder: Path) -> str:
    """Write the project into a new or empty folder; returns what to do next. Raises ParamsError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParamsError(f"{folder} is not empty", fix="name a new folder")
    package = package_name(folder.resolve().name)
    workflow = f"{package}.workflow:{package}"
    files = {
        f"{package}/__init__.py": f'"""Workflow and components of {package}."""\n',
        f"{package}/workflow.py": _filled("workflow.py", package),
        f"{package}/clean.py": _filled("clean.py", package),
        "tests/test_clean.py": _filled("test_clean.py", package),
        "params.yaml": _filled("params.yaml", package),
        "data/reviews.csv": _reviews(),
        ".gitignore": _filled("gitignore", package),
        "pyproject.toml": _filled("pyproject.toml", package),
        "README.md": _filled("README.md", package),
    }
    # A project is its team's to read, whatever this process keeps to itself.
    mask = os.umask(0o022)
    try:
        for name, text in files.items():
            _write(folder / name, text)
        _write(folder / "params.schema.json", _schema(folder, workflow))
    except OSError as error:
        raise ParamsError(f"cannot write to {folder}: {error.strerror}", fix="choose another folder") from None
    finally:
        os.umask(mask)
    return (
        f"made {folder}: {len(files) + 1} files\n\nNext:\n  cd {shlex.quote(str(folder))}\n"
        f"  raypath run {workflow} -f params.yaml\n  pip install pytest && python -m pytest"
    )


def package_name(name: str) -> str:
    """Return a name for the package that is an identifier and hides no module that Python would import."""
    # ASCII, since the workflow and the registered model have the same name.
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    name = re.sub(r"\W+", "_", plain.lower())[:60].strip("_") or "project"
    name = f"p_{name}" if name[0].isdigit() else name
    taken = keyword.iskeyword(name) or name in sys.stdlib_module_names or _importable(name)
    return f"{name}_project" if taken or name in ("data", "tests", "params") else name


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _filled(name: str, package: str) -> str:
    text = (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")
    return string.Template(text).substitute(package=package, editor_line=editor_line("params.schema.json"))


def _schema(folder: Path, workflow: str) -> str:
    """The schema of the project's own workflow, which is imported from its folder."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        return json.dumps(schema_of(workflow), indent=2, ensure_ascii=False) + "\n"
    finally:
        sys.path.remove(str(folder.resolve()))


def _reviews() -> str:
    """Made-up reviews of two classes, always the same."""
    rng = random.Random(0)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["text", "label"])
    for number in range(ROWS):
        label = rng.choice(sorted(WORDS))
        words = rng.sample(WORDS[label], k=3)
        rows.writerow([f"Order {number} was {words[0]}, {words[1]} and {words[2]}", label])
    return text.getvalue()
