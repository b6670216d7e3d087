"""The default workflow on nodes that share nothing but an S3 server: each has a home of its own, as machines have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from raypath.deploy.execution.run_history import Run
from tests.chaos.cluster import Nodes, free_port
from tests.chaos.project import digests, end, last, nodes_apart, repository, start, trained_on
from tests.deploy.store.s3 import BUCKET
from tests.workflows.conftest import write_rows

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.getuid() != 0, reason="a mount of its own for each node needs root"),
]
STEPS = ("read", "split", "preprocess", "inspect", "extract", "finetune", "evaluate")
"""Steps whose results do not depend on where they ran, nor on the names of runs."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_rows(tmp_path / "data.csv", 300)
    (tmp_path / "node").mkdir()
    (tmp_path / "url").write_text(f"http://127.0.0.1:{free_port()}")
    return repository(tmp_path, "node/", "shared/")


def test_nodes_that_share_no_folder(folder: Path) -> None:
    """The workers of the training are on both nodes; the results are those of nodes that share a folder."""
    with nodes_apart(folder) as (nodes, s3, mlflow):
        where, apart = _run(folder, nodes, s3, mlflow, "node", **{"ray.store": f"s3://{BUCKET}/project"})
        assert where == {"one", "two"}
        _check(folder, mlflow)
        _, together = _run(folder, nodes, s3, mlflow, "shared")
    assert apart == together


def test_a_node_that_dies_while_it_trains(folder: Path) -> None:
    """The other node's checkpoint is continued by a worker on a third node, which fetches it: the same model."""
    more = {"finetune.epochs": 30, "finetune.patience": 0, "finetune.checkpoint_seconds": 0.5, "tune.trials": 1}
    with nodes_apart(folder) as (nodes, s3, mlflow):
        _, calm = _run(folder, nodes, s3, mlflow, "shared", **more)
        client = _start(folder, nodes, s3, mlflow, "node", **more, **{"ray.store": f"s3://{BUCKET}/storm"})
        first = nodes.working(client, "ray::step:finetune", lambda: _checkpoints(folder, nodes))
        lost = ({"one", "two"} - {first}).pop()
        assert nodes.running("ray::RayTrainWorker").keys() >= {"one", "two"}
        nodes.kill(lost)
        nodes.add("three", own=folder / "node")
        end(client, seconds=900)
        assert _results(last(folder)) == calm


def _checkpoints(folder: Path, nodes: Nodes) -> list[Path]:
    """Whole checkpoints in the nodes' own homes, seen through the mounts of their processes."""
    homes = [Path(f"/proc/{process.pid}/root{folder / 'node'}") for process in nodes.nodes.values()]
    return [path for home in homes for path in home.glob("scratch/*/last/step-*/manifest.json")]


def _start(folder: Path, nodes: Nodes, s3: str, mlflow: str, home: str, **more: object) -> subprocess.Popen[str]:
    settings = {
        "ray.home": folder / home,
        "ray.mlflow": mlflow,
        "ray.serve_url": (folder / "url").read_text(),
        "finetune.batch_tokens": 256,
        "tune.trials": 2,
        "registry.name": "topics",
        **more,
    }
    return start(folder, nodes, settings, AWS_ENDPOINT_URL=s3)


def _run(
    folder: Path, nodes: Nodes, s3: str, mlflow: str, home: str, **more: object
) -> tuple[set[str], dict[str, str]]:
    """Run with a home; returns the nodes that trained, and the digests of the steps."""
    client = _start(folder, nodes, s3, mlflow, home, **more)
    where = trained_on(nodes, client)
    end(client)
    return where, _results(last(folder))


def _results(run: Run) -> dict[str, str]:
    return {name: digest for name, digest in digests(run).items() if name in STEPS}


def _check(folder: Path, mlflow: str) -> None:
    """Every step is done, the head has only what serves and its input, and numbers came from where steps were."""
    from mlflow import MlflowClient

    run = last(folder)
    assert {step.status for step in run.steps} == {"done"}
    there = {path.name for path in (folder / "node" / "artifacts").iterdir()}
    assert there == {_digest(run.step(name).artifact) for name in ("register", "serve")}
    client = MlflowClient(mlflow)
    experiment = client.get_experiment_by_name("text_classification")
    found = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert len(client.get_metric_history(found["finetune"].info.run_id, "train/loss")) > 5
    assert found["tune"].data.params


def _digest(artifact: dict[str, object] | None) -> str:
    assert artifact is not None
    return str(artifact["uri"]).rpartition("/")[2]
