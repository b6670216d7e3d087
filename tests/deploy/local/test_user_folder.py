"""The folder that a command is called in: its modules do not shadow installed packages, its paths are its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import Programs
from tests.deploy.traps import Traps

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


@pytest.mark.slow
def test_modules_of_the_folder_are_not_executed_and_relative_paths_are_the_callers(
    traps: Traps, programs: Programs
) -> None:
    """The services were started in the first folder."""
    for folder, rows in ((traps.one, 2), (traps.two, 5)):
        run = traps.call(folder, programs.home, "run", "team.flow:flow")
        assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
        shown = traps.call(folder, programs.home, "runs", "last").stdout
        [stored] = [line.strip() for line in shown.splitlines() if "/artifacts/" in line]
        assert len(Path(stored, "rows.txt").read_text().split()) == rows
    assert not traps.executed()


@pytest.mark.slow
def test_no_log_line_of_a_library_is_in_the_output_of_a_command(traps: Traps, programs: Programs) -> None:
    def call(*args: str) -> subprocess.CompletedProcess[str]:
        return traps.call(traps.one, programs.home, *args)

    assert call("up").returncode == 0
    deploy = [sys.executable, "-P", "-c", SERVE, str(programs.home)]
    deployed = subprocess.run(deploy, cwd=traps.one, check=False, timeout=120, capture_output=True, text=True)
    assert deployed.returncode == 0, deployed.stderr
    assert "/hello" in call("status").stdout
    commands = ("status", "models", "runs", "up", "run team.flow:flow", "keys list", "usage")
    for command in map(str.split, commands):
        ended = call(*command)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == "", command
        lines = re.findall(r".*(?:\d\d:\d\d:\d\d,\d\d\d|\b(?:INFO|WARNING|ERROR)\b).*", ended.stdout)
        assert lines == [], command
    assert not traps.executed()


@pytest.mark.parametrize("search", ["", "one"], ids=["", "in PYTHONPATH"])
def test_python_dash_m_does_not_execute_them_either(traps: Traps, tmp_path: Path, search: str) -> None:
    """The folder is first on the search path; also by PYTHONPATH, as in a job of a Ray cluster."""
    command = [sys.executable, "-m", "raypath.deploy.cli.main", "check", "team.flow:flow"]
    env = {**os.environ, "RAYPATH_HOME": str(tmp_path), "PYTHONPATH": str(traps.one.parent / search)}
    ended = subprocess.run(command, cwd=traps.one, env=env, text=True, capture_output=True, timeout=100, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not traps.executed()
