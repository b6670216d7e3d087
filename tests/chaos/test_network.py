"""The default workflow on three nodes that meet over a network: each has a namespace, an address and a loopback of its
own, and a name that leads to loopback, as on Debian. What they share is a folder, as over NFS.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raypath.components.tracking.server.app import TOKEN_FILE
from raypath.components.tracking.uploader import reachable
from raypath.deploy.local import mlflow_server
from tests.chaos.cluster import Nodes, free_port
from tests.chaos.network import Network, network
from tests.chaos.project import SAME, checkpoints, digests, end, last, repository, start, trained_on, training_settings
from tests.deploy.store.s3 import BUCKET, KEYS, moto
from tests.mlflow_login import write_token
from tests.workflows.conftest import write_rows

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_rows(folder / "data.csv", 6000)
    return repository(folder, "homes/", "mlflow/")


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as net:
        yield net


@pytest.fixture(scope="module")
def nodes(net: Network) -> Iterator[Nodes]:
    with Nodes(head=0, network=net, env=KEYS) as nodes:
        nodes.add("one")
        nodes.add("two")
        yield nodes


@pytest.fixture(scope="module")
def mlflow(net: Network, folder: Path) -> Iterator[str]:
    """A server on this machine's end of the bridge."""
    port, place = free_port(), folder / "mlflow"
    place.mkdir()
    line = [sys.executable, "-m", "raypath.deploy.kubernetes.mlflow_server", "serve", "--workers=1"]
    line += [f"--host={net.here}", f"--port={port}"]
    told = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{place}/db", "MLFLOW_ARTIFACTS_DESTINATION": f"{place}/files"}
    told |= {"MLFLOW_SERVER_ALLOWED_HOSTS": f"{net.here}:{port}", TOKEN_FILE: str(write_token(place))}
    with open(place / "log", "wb") as log:
        env = {**os.environ, **mlflow_server.ENVIRONMENT, **told}
        server = subprocess.Popen(line, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not reachable(f"http://{net.here}:{port}"):
            assert time.monotonic() < end, (place / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://{net.here}:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _start(folder: Path, nodes: Nodes, name: str, mlflow: str, **more: str) -> subprocess.Popen[str]:
    settings = training_settings(folder / "homes" / name, mlflow) | {
        "finetune.epochs": 3,
        "finetune.batch_tokens": 1024,
        "tune.trials": 1,
        "tune.rows": 256,
    }
    return start(folder, nodes, settings, subprocess.PIPE, **more)


@pytest.fixture(scope="module")
def calm(folder: Path, nodes: Nodes, mlflow: str) -> dict[str, str]:
    """Digests of an undisturbed run, with its two training workers on two nodes."""
    client = _start(folder, nodes, "calm", mlflow)
    where = trained_on(nodes, client)
    end(client)
    assert where == {"one", "two"}
    assert {step.status for step in last(folder).steps} == {"done"}
    return digests(last(folder))


def test_storage_that_only_the_head_reaches_is_told_before_a_step_runs(
    folder: Path, net: Network, nodes: Nodes, mlflow: str
) -> None:
    with moto(net.inside(nodes.at["head"])) as s3:
        more = {"RAYPATH_STORE": f"s3://{BUCKET}/x", "AWS_ENDPOINT_URL": s3}
        said = end(_start(folder, nodes, "apart", mlflow, **more), 2).splitlines()[-1]
    assert any(said.startswith(f"raypath: node {nodes.at[name]} (and 1 more): s3://team/x") for name in ("one", "two"))
    assert f"at {s3} does not respond (no connection); check AWS_ENDPOINT_URL" in said
    assert {step.status for step in last(folder).steps} == {"waiting"}


def test_two_workers_train_over_the_network(folder: Path, net: Network, nodes: Nodes, calm: dict[str, str]) -> None:
    assert len(calm) == len(SAME)
    _check_endpoint(folder, net, nodes, "calm")


@pytest.mark.parametrize(("how", "title"), [("killed", "ray::RayTrainWorker"), ("cut", "ray::step:finetune")])
def test_a_node_that_is_lost_while_it_trains_changes_nothing(
    how: str, title: str, folder: Path, net: Network, nodes: Nodes, mlflow: str, calm: dict[str, str]
) -> None:
    client = _start(folder, nodes, how, mlflow)
    name = nodes.working(client, title, lambda: checkpoints(folder / "homes" / how))
    if how == "killed":
        nodes.kill(name)
    else:
        # All its processes live on, and hold what they hold.
        net.pull(nodes.at[name])
    lost = time.monotonic()
    nodes.add(f"{name}'")
    end(client)
    # Left to Ray alone, a step on a node that is cut off is waited for for seven minutes.
    assert time.monotonic() - lost < 360
    assert digests(last(folder)) == calm
    _check_endpoint(folder, net, nodes, how)


def _check_endpoint(folder: Path, net: Network, nodes: Nodes, name: str) -> None:
    """The last run's answers on the head's loopback, and there alone."""
    served = last(folder).step("serve").artifact
    assert served is not None
    code = f"import urllib.request as u; print(u.urlopen('{served['url']}/healthz', timeout=9).read().decode())"
    inside = [*net.inside(nodes.at["head"]), sys.executable, "-c", code]
    said: dict[str, Any] = json.loads(subprocess.run(inside, capture_output=True, text=True, check=True).stdout)
    assert (said["name"], said["version"], said["status"]) == (name, 1, "ok")
    assert not reachable(f"http://{nodes.at['head']}:8000")
