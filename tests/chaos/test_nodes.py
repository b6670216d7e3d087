"""The whole default workflow on three nodes, two train workers on different ones; then again, a node killed in each of
preprocess, tune, finetune and serve: the same result.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import local
from deploy.runs import Run, load_runs
from tests.chaos.cluster import Nodes, free_port
from tests.tiny import tiny_bert
from tests.workflows.conftest import ROOT, WORDS

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1500)]
ROWS = 36_000
SAME = ("read", "split", "preprocess", "extract", "finetune", "evaluate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A git repository with a base model; data of 36 MB beside it, so that Ray Data spreads over the nodes."""
    folder = tmp_path_factory.mktemp("work")
    tiny_bert(folder / "base")
    dice, names = random.Random(0), sorted(WORDS)
    with open(folder / "data.csv", "w", encoding="utf-8") as file:
        file.write("body,topic\n")
        for number in range(ROWS):
            topic = names[number % 3]
            words = " ".join(dice.choices(WORDS[topic], k=20) + dice.choices(WORDS["none"], k=130))
            file.write(f'{number} {words},"{topic.replace(chr(34), chr(34) * 2)}"\n')
    (folder / ".gitignore").write_text(".raypath/\ndata.csv\ncalm/\nstorm/\n")
    run = "git init -q && git add -A && git -c user.email=a@b.c -c user.name=n commit -qm x"
    subprocess.run(run, shell=True, cwd=folder, check=True)
    local.up(folder / ".raypath", ray=False)
    yield folder
    local.down(folder / ".raypath")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    # A head without CPUs, as clusters have it: it runs the driver and what hands requests on, and no work.
    with Nodes(head=0) as nodes:
        nodes.add("one")
        nodes.add("two")
        yield nodes


def _start(folder: Path, nodes: Nodes, home: str, port: int) -> subprocess.Popen[str]:
    mlflow = local.read(folder / ".raypath").mlflow
    assert mlflow is not None
    settings = {
        "ray.home": folder / home,
        "ray.mlflow": mlflow.address,
        "ray.serve_url": f"http://127.0.0.1:{port}",
        "read.uri": folder / "data.csv",
        "read.text": "body",
        "read.label": "topic",
        "preprocess.max_length": 32,
        "finetune.base": "base",
        "finetune.workers": 2,
        "finetune.frozen_layers": 0,
        "finetune.epochs": 1,
        "finetune.threads": 1,
        "finetune.batch_tokens": 2048,
        "finetune.checkpoint_seconds": 1,
        "tune.trials": 3,
        "tune.rows": 3000,
        # One after another: which trial is cut short is otherwise a matter of who comes first.
        "tune.concurrent": 1,
        "registry.name": home,
        "serve.cpus": 0.5,
    }
    pairs = [part for key, value in settings.items() for part in ("-s", f"{key}={value}")]
    line = ["run", "text_classification", "--on", "ray", "--address", nodes.address, *pairs]
    env = {**os.environ, **nodes.env, "PYTHONPATH": str(ROOT), "RAYPATH_HOME": str(folder / ".raypath")}
    command = [sys.executable, "-m", "deploy.cli", *line]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=sys.stderr, stderr=sys.stderr, text=True)


def _last(folder: Path) -> Run:
    return load_runs(folder / ".raypath")[-1]


def _digests(run: Run) -> dict[str, str]:
    return {s.name: s.artifact["digest"] for s in run.steps if s.artifact and s.name in SAME}


def _best(run: Run) -> Any:
    """What the search found; its files also tell how long it took."""
    found = run.step("tune").artifact
    return found and (found["values"], found["score"], found["trials"])


def test_a_node_killed_in_each_of_four_steps_changes_nothing(folder: Path, nodes: Nodes) -> None:
    port = free_port()
    client, where = _start(folder, nodes, "calm", port), _watch_workers(nodes)
    while client.poll() is None:
        where()
        time.sleep(0.2)
    assert client.returncode == 0
    assert len(where()) >= 2, "the two train workers were on one node"
    calm = _last(folder)

    def checkpoint() -> bool:
        return any((folder / "storm" / "scratch").glob("*/last/step-*/manifest.json"))

    client = _start(folder, nodes, "storm", port)
    for title, ready, wait in (
        ("ray::step:preprocess", lambda: True, 1.0),
        ("ray::step:tune", lambda: True, 8.0),
        ("ray::RayTrainWorker", checkpoint, 0.0),
        ("ray::ServeReplica:storm:", lambda: True, 0.0),
    ):
        name = nodes.working(client, title, ready, wait)
        nodes.kill(name)
        print(f"killed {name}, where {title} ran", file=sys.stderr, flush=True)
        # Another in its place; then Ray has as many as before.
        nodes.add(f"{name}'")
    assert client.wait(900) == 0
    storm = _last(folder)
    assert storm.id != calm.id
    assert _best(storm) == _best(calm)
    assert _digests(storm) == _digests(calm)
    assert len(_digests(storm)) == len(SAME)


def _watch_workers(nodes: Nodes) -> Callable[[], set[str]]:
    seen: set[str] = set()

    def look() -> set[str]:
        seen.update(nodes.running("ray::RayTrainWorker"))
        return seen

    return look
