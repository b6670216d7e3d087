"""A user's package of components and workflows: any name works, also that of a folder of Raypath."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STEPS = '''
from raypath.components import Context, Dataset, Params, component
from {package}.inner.words import WORD


class LoadParams(Params):
    """Settings."""

    times: int = 2
    """Repetitions."""


@component(version=1)
def load(ctx: Context, params: LoadParams) -> Dataset:
    (ctx.out / "text").write_text(WORD * params.times)
    return Dataset(rows=params.times)
'''
FLOW = '''
"""Load."""
from raypath.components import Dataset, Params, workflow
from {package}.inner.steps import LoadParams, load


class Flow(Params):
    """Settings."""

    load: LoadParams = LoadParams()


@workflow
def flow(p: Flow) -> Dataset:
    return load(p.load)
'''
# The package is found in the current folder only; the folder of the tests is added afterwards.
RUN = """
import os, sys
from pathlib import Path
from raypath.deploy.execution.workflow_loader import load_workflow
graph = load_workflow(sys.argv[1]).trace()
sys.path.insert(0, sys.argv[2])
from raypath.deploy.execution.runner import Runner
from raypath.deploy.store.store import Store
from tests.deploy.execution.test_runner import Here, Nobody
runner = Runner(graph, Store(Path("home")).open(), Here(), Nobody())
print(Path(runner.execute().uri, "text").read_text(), runner.run.steps[0].reason, sep="; ")
"""


@pytest.mark.parametrize("package", ["shop", "components", "workflows", "deploy", "components_acme", "acme.flows"])
def test_a_package_of_any_name_runs_and_its_code_counts(tmp_path: Path, package: str) -> None:
    inner = tmp_path.joinpath(*package.split("."), "inner")
    inner.mkdir(parents=True)
    for folder in (folder for folder in inner.parents if folder.is_relative_to(tmp_path) and folder != tmp_path):
        (folder / "__init__.py").touch()
    (inner / "__init__.py").touch()
    (inner / "words.py").write_text("WORD = 'tea'\n")
    (inner / "steps.py").write_text(STEPS.format(package=package))
    (inner.parent / "flow.py").write_text(FLOW.format(package=package))

    def run() -> str:
        command = [sys.executable, "-P", "-B", "-c", RUN, f"{package}.flow:flow", str(ROOT)]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    assert run() == "teatea; it has not run before"
    assert run() == "teatea; nothing changed"
    (inner / "words.py").write_text("WORD = 'mug'\n")
    assert run() == "mugmug; its code changed"
