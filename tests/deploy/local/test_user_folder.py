"""The folder that a command is called in: its modules do not shadow installed packages, its paths are its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypath.deploy.local import services

NAMES = ("deploy.py", "components/__init__.py", "workflows/__init__.py", "mlflow.py", "ray.py", "torch.py", "pandas.py")
NAMESPACES = ("google.py", "opentelemetry.py", "mpl_toolkits.py")
"""Modules with the name of a namespace package, which Python takes last of all."""
TRAP = "from pathlib import Path\nPath(__file__ + '.executed').touch()\nraise SystemExit('shadows a package')\n"
FLOW = '''"""A team's own workflow, with a component of its own."""

from raypath.components import Context, Dataset, Params, component, workflow
from raypath.components.core.params import Source


class CopyParams(Params):
    uri: Source = "rows.txt"


class Copy(Params):
    read: CopyParams = CopyParams()


@component(version=1)
def copy(ctx: Context, params: CopyParams) -> Dataset:
    import mlflow  # as steps do that register a model
    from google.protobuf import message
    from opentelemetry import sdk

    assert "site-packages" in message.__file__ + sdk.__path__[0]
    assert "site-packages" in mlflow.__file__
    text = open(params.uri).read()
    (ctx.out / "rows.txt").write_text(text)
    return Dataset(rows=len(text.split()))


@workflow
def flow(p: Copy) -> Dataset:
    return copy(p.read)
'''
SERVE = """
import sys
from pathlib import Path

from raypath.components.serving.control import proxy
from raypath.deploy.execution.process import search_current_folder
from raypath.deploy.execution.run_history import StepState, StepStatus, begin
from raypath.deploy.local import state
from raypath.deploy.local.ray_connection import connection

home = Path(sys.argv[1])
search_current_folder()
connection.connect(home)
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Hello:
    def __call__(self, request):
        return "hello"

url = f"http://127.0.0.1:{state.read(home).ray.serve_port}"
proxy.start(url, 5)
serve.run(Hello.bind(), name="hello", route_prefix="/hello")
run = begin(home, "flow", "0", {}, ["serve"])
run.steps[0] = StepState(name="serve", status=StepStatus.DONE, artifact={"url": f"{url}/hello", "name": "hello"})
run.save(home)
"""


def call(folder: Path, home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `raypath ARGS` in a folder as the installed command does, which does not search that folder."""
    code = "import sys; from raypath.deploy.cli.main import main; sys.exit(main())"
    env = {**os.environ, "RAYPATH_HOME": str(home)}
    command = [sys.executable, "-P", "-c", code, *args]
    return subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    """Two folders with the same names in them and one home."""
    root = tmp_path_factory.mktemp("folders")
    for name, rows in (("one", "a b"), ("two", "a b c d e")):
        for trap in NAMES + NAMESPACES:
            path = root / name / trap
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(TRAP)
        (root / name / "rows.txt").write_text(rows)
        (root / name / "team").mkdir()
        (root / name / "team" / "__init__.py").touch()
        (root / name / "team" / "flow.py").write_text(FLOW)
    yield root / "one", root / "two", root / "home"
    services.down(root / "home")


@pytest.mark.slow
def test_modules_of_the_folder_are_not_executed_and_relative_paths_are_the_callers(
    folders: tuple[Path, Path, Path],
) -> None:
    one, two, home = folders
    up = call(one, home, "up")
    assert up.returncode == 0, up.stderr
    for folder, rows in ((one, 2), (two, 5)):
        run = call(folder, home, "run", "team.flow:flow")
        assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
        shown = call(folder, home, "runs", "last").stdout
        [stored] = [line.strip() for line in shown.splitlines() if "/artifacts/" in line]
        assert len(Path(stored, "rows.txt").read_text().split()) == rows
    assert not list(one.parent.rglob("*.executed"))


@pytest.mark.slow
def test_no_log_line_of_a_library_is_in_the_output_of_a_command(folders: tuple[Path, Path, Path]) -> None:
    one, _, home = folders
    assert call(one, home, "up").returncode == 0
    deploy = [sys.executable, "-P", "-c", SERVE, str(home)]
    deployed = subprocess.run(deploy, cwd=one, check=False, timeout=120, capture_output=True, text=True)
    assert deployed.returncode == 0, deployed.stderr
    assert "/hello" in call(one, home, "status").stdout
    commands = ("status", "models", "runs", "up", "run team.flow:flow", "keys list", "usage")
    for command in map(str.split, commands):
        ended = call(one, home, *command)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == "", command
        lines = re.findall(r".*(?:\d\d:\d\d:\d\d,\d\d\d|\b(?:INFO|WARNING|ERROR)\b).*", ended.stdout)
        assert lines == [], command
    assert not list(one.parent.rglob("*.executed"))


@pytest.mark.parametrize("search", ["", "one"], ids=["", "in PYTHONPATH"])
def test_python_dash_m_does_not_execute_them_either(folders: tuple[Path, Path, Path], search: str) -> None:
    """The folder is first on the search path; also by PYTHONPATH, as in a job of a Ray cluster."""
    one, _, home = folders
    command = [sys.executable, "-m", "raypath.deploy.cli.main", "check", "team.flow:flow"]
    env = {**os.environ, "RAYPATH_HOME": str(home), "PYTHONPATH": str(one.parent / search)}
    ended = subprocess.run(command, cwd=one, env=env, text=True, capture_output=True, timeout=100, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not list(one.parent.rglob("*.executed"))
