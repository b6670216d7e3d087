"""RAYPATH_PRECISION of the shell reaches steps, their tasks and the replicas of endpoints, while Ray stays up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raypath.components.models.bf16 import VARIABLE
from raypath.deploy.local import services

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
FLOW = '''"""Report the precision that a step, a task of it and a replica see."""

import os

from raypath import Context, Params, component, workflow
from raypath.components.core.artifacts import Artifact


class Seen(Artifact):
    """Values of the variable."""

    step: str
    task: str
    replica: str


class SeenParams(Params):
    """No settings."""


class Flow(Params):
    """One step."""

    see: SeenParams = SeenParams()


def value() -> str:
    return os.environ.get("RAYPATH_PRECISION") or "none"


@component(version=1)
def see(ctx: Context, params: SeenParams) -> Seen:
    """Ask a task and a replica."""
    import ray
    from ray import serve

    from raypath.components.serving.control import proxy
    from raypath.components.serving.control.ray_options import worker_environment

    class Replica:
        def __call__(self) -> str:
            return value()

    proxy.start(ctx.serve_url, 10.0)
    options = {"num_cpus": 0, **({"runtime_env": {"env_vars": found}} if (found := worker_environment()) else {})}
    made = serve.deployment(Replica).options(ray_actor_options=options).bind()
    handle = serve.run(made, name=f"see-{value()}", route_prefix=None)
    return Seen(step=value(), task=ray.get(ray.remote(num_cpus=0)(value).remote()), replica=handle.remote().result())


@workflow
def flow(p: Flow) -> Seen:
    return see(p.see)
'''


def _seen(folder: Path, precision: str | None) -> list[str]:
    env = {name: text for name, text in os.environ.items() if name != VARIABLE}
    env |= {"RAYPATH_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT / "src")}
    env |= {} if precision is None else {VARIABLE: precision}
    command = [sys.executable, "-m", "raypath.deploy.cli.main", "run", "seeing:flow", "--json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["steps"][0]["artifact"]
    return [found["step"], found["task"], found["replica"]]


def test_each_run_has_the_precision_of_its_shell(tmp_path: Path) -> None:
    (tmp_path / "seeing.py").write_text(FLOW)
    try:
        # The second run has another environment than the head and the controller, the third the head's again.
        for precision in ("fp32", None, "fp32"):
            assert _seen(tmp_path, precision) == [precision or "none"] * 3
    finally:
        services.down(tmp_path / "home")


def test_a_head_without_it_passes_it_on(tmp_path: Path) -> None:
    (tmp_path / "seeing.py").write_text(FLOW)
    try:
        for precision in (None, "fp32", None):
            assert _seen(tmp_path, precision) == [precision or "none"] * 3
    finally:
        services.down(tmp_path / "home")
