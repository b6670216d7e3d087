"""The default workflow on nodes that share nothing but an S3 server: each has a home of its own, as machines have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.cluster import Nodes, free_port
from tests.chaos.project import end, last, nodes_apart, repository, start
from tests.deploy.store.s3 import BUCKET
from tests.workflows.conftest import write_rows

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.getuid() != 0, reason="a mount of its own for each node needs root"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_rows(tmp_path / "data.csv", 300)
    (tmp_path / "node").mkdir()
    return repository(tmp_path, "node/")


def test_nodes_that_share_no_folder(folder: Path) -> None:
    with nodes_apart(folder) as (nodes, s3, mlflow):
        _run(folder, nodes, s3, mlflow)
        _check(folder, mlflow)


def _run(folder: Path, nodes: Nodes, s3: str, mlflow: str) -> None:
    settings = {
        "ray.store": f"s3://{BUCKET}/project",
        "ray.home": folder / "node",
        "ray.mlflow": mlflow,
        "ray.serve_url": f"http://127.0.0.1:{free_port()}",
        "finetune.batch_tokens": 256,
        "tune.trials": 2,
        "registry.name": "topics",
    }
    end(start(folder, nodes, settings, AWS_ENDPOINT_URL=s3))


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
