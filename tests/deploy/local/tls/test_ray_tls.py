"""Ray's own TLS: a head, a driver, a second node with a certificate of the project, and one without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypath.components.core.errors import UserError
from raypath.deploy.local import services, state
from raypath.deploy.local.tls import project

NODE = """
from ray._private import node, services
services.resolve_ip_for_localhost = lambda host: host  # else it looks for the head at the address of the network
from ray.scripts import scripts
scripts.services.resolve_ip_for_localhost = services.resolve_ip_for_localhost
scripts.main()
"""
DRIVER = """
import pathlib, sys, time
from raypath.deploy.local.ray_connection import connection
connection.connect(pathlib.Path(sys.argv[1]))
import ray

@ray.remote(num_cpus=0, resources={"second": 1})
def text():
    import os
    return os.environ["RAY_TLS_SERVER_CERT"]

while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.1)
print(pathlib.Path(ray.get(text.remote())).name, sum(node["Alive"] for node in ray.nodes()))
print("plain" in ray.cluster_resources())
"""
pytestmark = pytest.mark.slow
PATIENCE = 240
"""Seconds that a process may take on a busy machine."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("ray-tls") / ".raypath"
    found.mkdir()
    try:
        services.up(found, mlflow=False, dashboard=False, ray_tls=True)
        yield found
    finally:
        services.down(found)


def _start_node(home: Path, name: str, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a node with a resource of this name that joins the home's head."""
    known = {name: value for name, value in {**os.environ, **state.environment(home)}.items() if "_TLS" not in name}
    head = state.read(home).ray
    assert head is not None
    options = [
        f"--address={head.address}",
        "--node-ip-address=127.0.0.1",
        "--num-cpus=1",
        f'--resources={{"{name}": 1}}',
    ]
    command = [sys.executable, "-c", NODE, "start", *options, "--block", "--disable-usage-stats"]
    env = {**known, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", **variables}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_node_needs_a_certificate_of_the_project(home: Path) -> None:
    project.make_node(home, "second", ["127.0.0.1"])
    plain = _start_node(home, "plain", {})  # it tries to reach the head until it is ended
    joined = _start_node(home, "second", project.node_environment(home, "second"))
    try:
        command = [sys.executable, "-c", DRIVER, str(home)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout.split()) == (0, ["second.crt", "2", "False"]), done.stderr
    finally:
        for each in (plain, joined):
            each.terminate()
            each.wait()


def test_a_head_that_runs_without_tls_is_not_changed(home: Path) -> None:
    before = state.read(home)
    state.write(home, before.model_copy(update={"ray_tls": False}))
    try:
        with pytest.raises(UserError, match="Ray is running without TLS"):
            services.up(home, mlflow=False, dashboard=False, ray_tls=True)
    finally:
        state.write(home, before)
