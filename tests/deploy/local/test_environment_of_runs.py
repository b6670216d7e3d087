"""RAYPATH_PRECISION of the shell reaches steps, their tasks and the replicas of endpoints, while Ray stays up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raypath.components.models.bf16 import VARIABLE

# These tests come before those of test_haproxy.py: the step that starts Ray Serve must not pass its environment on.
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


def _seen(folder: Path, home: Path, precision: str | None) -> list[str]:
    env = {name: text for name, text in os.environ.items() if name != VARIABLE}
    env |= {"RAYPATH_HOME": str(home), "PYTHONPATH": str(ROOT / "src")}
    env |= {} if precision is None else {VARIABLE: precision}
    command = [sys.executable, "-m", "raypath.deploy.cli.main", "run", "seeing:flow", "--json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["steps"][0]["artifact"]
    return [found["step"], found["task"], found["replica"]]


@pytest.mark.parametrize(
    ("head", "runs"), [("one", [None, "fp32"]), ("two", ["fp32", None])], ids=["a head with it", "a head without it"]
)
def test_each_run_has_the_precision_of_its_shell(
    two_heads: dict[str, Path], tmp_path: Path, head: str, runs: list[str | None]
) -> None:
    """The first run, which starts Ray Serve, has another environment than the head, the second the head's."""
    (tmp_path / "seeing.py").write_text(FLOW)
    for precision in runs:
        assert _seen(tmp_path, two_heads[head], precision) == [precision or "none"] * 3
