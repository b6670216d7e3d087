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

from components.training.shipping import reachable
from deploy import mlflow_server
from deploy.runs import Run, load_runs
from tests.chaos.cluster import Nodes, free_port
from tests.chaos.network import Network, network
from tests.deploy.s3 import BUCKET, KEYS, moto
from tests.tiny import tiny_bert
from tests.workflows.conftest import ROOT, write_rows

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1200)]
SAME = ("read", "split", "preprocess", "finetune", "evaluate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_rows(folder / "data.csv", 6000)
    tiny_bert(folder / "base")
    (folder / ".gitignore").write_text(".raypath/\nhomes/\nmlflow/\n")
    for line in ("git init -q", "git add -A"):
        subprocess.run(line.split(), cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as net:
        yield net


@pytest.fixture(scope="module")
def nodes(net: Network) -> Iterator[Nodes]:
    with Nodes(head=0, network=net, **KEYS) as nodes:
        nodes.add("one")
        nodes.add("two")
        yield nodes


@pytest.fixture(scope="module")
def mlflow(net: Network, folder: Path) -> Iterator[str]:
    """A server on this machine's end of the bridge."""
    port, place = free_port(), folder / "mlflow"
    place.mkdir()
    line = [sys.executable, "-m", "mlflow", "server", f"--host={net.here}", f"--port={port}", "--workers=1"]
    line += [f"--backend-store-uri=sqlite:///{place}/db", f"--artifacts-destination={place}/files"]
    line += ["--serve-artifacts", f"--allowed-hosts={net.here}:{port}"]
    with open(place / "log", "wb") as log:
        env = {**os.environ, **mlflow_server.ENVIRONMENT}
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
    settings = {
        "ray.home": str(folder / "homes" / name),
        "ray.mlflow": mlflow,
        "read.uri": "data.csv",
        "read.text": "body",
        "read.label": "topic",
        "preprocess.max_length": 32,
        "finetune.base": "base",
        "finetune.workers": 2,
        "finetune.frozen_layers": 0,
        "finetune.epochs": 3,
        "finetune.threads": 1,
        "finetune.batch_tokens": 1024,
        "finetune.checkpoint_seconds": 1,
        "tune.trials": 1,
        "tune.rows": 256,
        "registry.name": name,
        "serve.cpus": 0.5,
    }
    pairs = [part for key, value in settings.items() for part in ("-s", f"{key}={value}")]
    line = ["run", "text_classification", "--on", "ray", "--address", nodes.address, *pairs]
    env = {**os.environ, **nodes.env, **more, "PYTHONPATH": str(ROOT), "RAYPATH_HOME": str(folder / ".raypath")}
    command, pipe = [sys.executable, "-m", "deploy.cli", *line], subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def _end(client: subprocess.Popen[str], status: int) -> str:
    said, _ = client.communicate(timeout=600)
    assert client.returncode == status, said
    return said


def _digests(run: Run) -> dict[str, str]:
    return {s.name: s.artifact["digest"] for s in run.steps if s.artifact and s.name in SAME}


@pytest.fixture(scope="module")
def calm(folder: Path, nodes: Nodes, mlflow: str) -> dict[str, str]:
    """What comes of a run in which nothing happens, its two train workers on two nodes."""
    client, where = _start(folder, nodes, "calm", mlflow), set[str]()
    while client.poll() is None:
        where.update(nodes.running("ray::RayTrainWorker"))
        time.sleep(0.2)
    _end(client, 0)
    assert where == {"one", "two"}
    run = load_runs(folder / ".raypath")[-1]
    assert {step.status for step in run.steps} == {"done"}
    return _digests(run)


def test_storage_that_only_the_head_reaches_is_told_before_a_step_runs(
    folder: Path, net: Network, nodes: Nodes, mlflow: str
) -> None:
    with moto(net.inside(nodes.at["head"])) as s3:
        more = {"RAYPATH_STORE": f"s3://{BUCKET}/x", "AWS_ENDPOINT_URL": s3}
        said = _end(_start(folder, nodes, "apart", mlflow, **more), 2).splitlines()[-1]
    assert any(said.startswith(f"raypath: node {nodes.at[name]} (and 1 more): s3://team/x") for name in ("one", "two"))
    assert f"at {s3} does not answer (no connection); check AWS_ENDPOINT_URL" in said
    assert {step.status for step in load_runs(folder / ".raypath")[-1].steps} == {"waiting"}


def test_two_workers_train_over_the_network(folder: Path, net: Network, nodes: Nodes, calm: dict[str, str]) -> None:
    assert len(calm) == len(SAME)
    _check_endpoint(folder, net, nodes, "calm")


@pytest.mark.parametrize(("how", "title"), [("killed", "ray::RayTrainWorker"), ("cut", "ray::step:finetune")])
def test_a_node_that_is_lost_while_it_trains_changes_nothing(
    how: str, title: str, folder: Path, net: Network, nodes: Nodes, mlflow: str, calm: dict[str, str]
) -> None:
    client = _start(folder, nodes, how, mlflow)
    name = nodes.working(client, title, lambda: _checkpoints(folder, how))
    if how == "killed":
        nodes.kill(name)
    else:
        # All its processes live on, and hold what they hold.
        net.pull(nodes.at[name])
    lost = time.monotonic()
    nodes.add(f"{name}'")
    _end(client, 0)
    # Left to Ray alone, a step on a node that is cut off is waited for for seven minutes.
    assert time.monotonic() - lost < 360
    assert _digests(load_runs(folder / ".raypath")[-1]) == calm
    _check_endpoint(folder, net, nodes, how)


def _checkpoints(folder: Path, name: str) -> list[Path]:
    return list((folder / "homes" / name / "scratch").glob("*/last/step-*/manifest.json"))


def _check_endpoint(folder: Path, net: Network, nodes: Nodes, name: str) -> None:
    """The last run's answers on the head's loopback, and there alone."""
    served = load_runs(folder / ".raypath")[-1].step("serve").artifact
    assert served is not None
    code = f"import urllib.request as u; print(u.urlopen('{served['url']}/healthz', timeout=9).read().decode())"
    inside = [*net.inside(nodes.at["head"]), sys.executable, "-c", code]
    said: dict[str, Any] = json.loads(subprocess.run(inside, capture_output=True, text=True, check=True).stdout)
    assert (said["name"], said["version"], said["status"]) == (name, 1, "ok")
    assert not reachable(f"http://{nodes.at['head']}:8000")
