"""The whole default workflow on three nodes, two train workers on different ones; then again, a node killed in each of
preprocess, tune, finetune and serve: the same result.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raypath.deploy.execution.run_history import Run
from raypath.deploy.local import services as local
from raypath.deploy.local import state
from tests.chaos.cluster import Nodes, free_port
from tests.chaos.project import SAME, checkpoints, digests, end, last, repository, start, trained_on, training_settings
from tests.mlflow_login import write_token
from tests.workflows.conftest import WORDS

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1500)]
ROWS = 36_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A git repository with a base model; data of 36 MB beside it, so that Ray Data spreads over the nodes."""
    folder = tmp_path_factory.mktemp("work")
    rng, names = random.Random(0), sorted(WORDS)
    with open(folder / "data.csv", "w", encoding="utf-8") as file:
        file.write("body,topic\n")
        for number in range(ROWS):
            topic = names[number % 3]
            words = " ".join(rng.choices(WORDS[topic], k=20) + rng.choices(WORDS["none"], k=130))
            file.write(f'{number} {words},"{topic.replace(chr(34), chr(34) * 2)}"\n')
    repository(folder, "data.csv", "calm/", "storm/")
    write_token(folder / ".raypath")
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
    mlflow = state.read(folder / ".raypath").mlflow
    assert mlflow is not None
    settings = training_settings(folder / home, mlflow.address) | {
        "ray.serve_url": f"http://127.0.0.1:{port}",
        "read.uri": folder / "data.csv",
        "finetune.epochs": 1,
        "finetune.batch_tokens": 2048,
        "tune.trials": 3,
        "tune.rows": 3000,
        # One after another: which trial is cut short is otherwise a matter of who comes first.
        "tune.concurrent": 1,
    }
    return start(folder, nodes, settings)


def _best(run: Run) -> Any:
    """Result of the search, without its files, which contain durations."""
    found = run.step("tune").artifact
    return found and (found["values"], found["score"], found["trials"])


def test_a_node_killed_in_each_of_four_steps_changes_nothing(folder: Path, nodes: Nodes) -> None:
    port = free_port()
    client = _start(folder, nodes, "calm", port)
    where = trained_on(nodes, client)
    end(client)
    assert len(where) >= 2, "the two train workers were on one node"
    calm = last(folder)
    client = _start(folder, nodes, "storm", port)
    for title, ready, wait in (
        ("ray::step:preprocess", lambda: True, 1.0),
        ("ray::step:tune", lambda: True, 8.0),
        ("ray::RayTrainWorker", lambda: checkpoints(folder / "storm"), 0.0),
        ("ray::ServeReplica:storm:", lambda: True, 0.0),
    ):
        name = nodes.working(client, title, ready, wait)
        nodes.kill(name)
        print(f"killed {name}, where {title} ran", file=sys.stderr, flush=True)
        # Another in its place; then Ray has as many as before.
        nodes.add(f"{name}'")
    end(client, seconds=900)
    storm = last(folder)
    assert storm.id != calm.id
    assert _best(storm) == _best(calm)
    assert digests(storm) == digests(calm)
    assert len(digests(storm)) == len(SAME)
