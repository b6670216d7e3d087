"""The default workflow as a pipeline, from a file to a model in service: a real MLflow, a real Ray Serve."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from raypath.deploy.kubeflow import launcher as kubeflow
from raypath.deploy.launchers import prepare
from tests.components.conftest import mlflow_uri, ray_head
from tests.components.serving.test_registry_watcher import own_serve
from tests.deploy.kubeflow.kubeflow_local import local_runner, told
from tests.k8s.manifests import IMAGE
from tests.tiny import tiny_bert
from tests.workflows.conftest import WORDS, write_rows

__all__ = ["mlflow_uri", "own_serve", "ray_head"]
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("kfp") is None, reason="needs the extra `kubeflow`"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def test_a_pipeline_ends_in_an_endpoint_and_then_needs_nothing(
    own_serve: SimpleNamespace,
    tmp_path: Path,
) -> None:
    shop = own_serve
    write_rows(tmp_path / "data.csv", 120)
    settings = {
        "kubeflow.image": IMAGE, "kubeflow.store": str(tmp_path / "store"), "kubeflow.claim": "shared",
        "kubeflow.tracking": shop.uri, "kubeflow.endpoint": shop.url,
        "read.uri": str(tmp_path / "data.csv"), "read.text": "body", "read.label": "topic",
        "finetune.base": str(tiny_bert(tmp_path / "base")), "finetune.frozen_layers": "0", "finetune.threads": "1",
        "finetune.lr": "1e-3", "tune.trials": "2", "tune.rows": "64", "tune.lr": "1e-3,3e-3",
        "registry.name": "followed", "registry.precision": "fp32",
    }  # fmt: skip
    _, job, params = prepare("kubeflow", "text_classification", settings, tmp_path)
    steps = {node.name for node in job.graph.nodes}
    with local_runner(kubeflow.render(job, params), tmp_path) as run:
        assert run() == dict.fromkeys(steps, False)
        assert run() == dict.fromkeys(steps, True), "version and endpoint are still there"
    assert told(tmp_path, "serve", "output")["url"] == shop.url
    assert (told(tmp_path, "register", "output")["version"], told(tmp_path, "tune", "output")["trials"]) == (1, 2)
    headers = {"Authorization": f"Bearer {shop.key}"}
    answer = httpx.post(f"{shop.url}/predict", json={"text": ["lovely"]}, headers=headers, trust_env=False, timeout=30)
    assert answer.json()["predictions"][0]["label"] in WORDS
    _check_numbers(shop.uri)


def _check_numbers(uri: str) -> None:
    """Each step's run lies below the pipeline's in MLflow, and has what it noted."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("text_classification")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    tops = [run for run in runs if run.data.tags["raypath.kind"] == "workflow"]
    assert len(tops) == 2
    steps = {run.info.run_name: run for run in runs if run.data.tags["raypath.kind"] == "step"}
    first = next(run for run in tops if run.info.run_id == steps["finetune"].data.tags["mlflow.parentRunId"])
    assert {run.data.tags["mlflow.parentRunId"] for run in steps.values()} == {first.info.run_id}
    assert "train/loss" in steps["finetune"].data.metrics
    assert {"evaluate/macro_f1", "finetune/accuracy"} <= set(first.data.metrics)
    trials = [run for run in runs if run.data.tags["raypath.kind"] == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {steps["tune"].info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
