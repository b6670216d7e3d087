"""Imports go one way: components <- workflows <- deploy; core is light; importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RANK = {"components": 0, "workflows": 1, "deploy": 2}
HEAVY = {"ray", "torch", "mlflow", "transformers", "pyarrow", "pandas", "sklearn", "matplotlib", "numpy"}
FILES = sorted(p.relative_to(ROOT) for folder in RANK for p in (ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_follow_the_arrow(path: Path) -> None:
    ours = {name.removeprefix("raypath.").partition(".")[0] for name in _imports(path)} & RANK.keys()
    assert all(RANK[name] <= RANK[path.parts[0]] for name in ours)
    if path.parts[:2] == ("components", "core"):
        assert not {name.partition(".")[0] for name in _imports(path)} & (HEAVY | {"rich"})


def test_drawing_a_workflow_imports_nothing_heavy() -> None:
    code = (
        "import sys; from raypath.workflows.text_classification import text_classification as w; w.trace();"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_folders_are_as_the_house_plan_says() -> None:
    steps = {p.stem for p in (ROOT / "components").glob("*.py")} - {"__init__"}
    assert steps >= {"read", "split", "preprocess", "tune", "finetune", "evaluate", "register", "serve"}
    sizes = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {path: size for path, size in sizes.items() if size > 300}
