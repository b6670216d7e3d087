"""Regenerate the golden files: `python -m tests.deploy.kubernetes.golden`. Review the diff before you commit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components.data.streaming.shard_cache import LIMIT
from raypath.components.models import bf16
from raypath.deploy.kubernetes import launcher as kuberay
from raypath.deploy.launchers import prepare
from raypath.deploy.triggers import schedule

HERE = Path(__file__).parent
IMAGE = {"kuberay.image": "registry.example.com/raypath@sha256:" + "a" * 64}
CRON = "0 3 * * 1"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "language_model": (
        "",
        {
            **{"serve.gpus": 2, "serve.tensor_parallel_size": 2, "serve.max_replicas": 3, "serve.cpus": 8},
            **{"kuberay.serve_memory": "64Gi", "kuberay.gpus": 1, "kuberay.memory": "32Gi"},
        },
    ),
    "language_model_without_gpu": ("", {"kuberay.model_cache": None}),
    "object_storage": (
        "",
        {
            **{"kuberay.store": "s3://bucket/team", "kuberay.gpus": 2, "kuberay.workers": 3, "kuberay.retries": 1},
            **{"kuberay.cpus": 4, "kuberay.memory": "16Gi", "kuberay.deadline": 90.5, "kuberay.namespace": "team"},
            **{"kuberay.tracking": "http://mlflow.team:5000", "kuberay.name": "nightly", "registry.name": "my_topics"},
            **{"serve.route": "/topics", "serve.replicas": 3, "serve.max_replicas": 6, "serve.gpus": 0.5},
            **{"serve.cpus": 1.5, "serve.log_predictions": 0.5, "serve.request_timeout": 7.0, "finetune.epochs": 2},
        },
    ),
    "scaled_to_zero": ("", {"serve.replicas": 0, "serve.max_replicas": 3, "kuberay.queue": "training"}),
    "without_endpoint": ("", {"kuberay.endpoint": False, "kuberay.loaded": True, "kuberay.image": "raypath:dev"}),
    "cronjob_queue": (CRON, {"kuberay.queue": "training"}),
    "raycronjob": (CRON, {"kuberay.raycronjob": True, "kuberay.queue": "training"}),
}
"""Schedule and settings by name of the file; one that begins with language is of the workflow chat."""


def golden(name: str) -> str:
    """Manifests of a workflow with the settings of a case."""
    cron, settings = CASES[name]
    with pytest.MonkeyPatch.context() as patch:
        for variable in (bf16.VARIABLE, LIMIT):
            patch.delenv(variable, raising=False)
        workflow = "chat" if name.startswith("language") else "text_classification"
        _, request, params = prepare("kuberay", workflow, IMAGE | settings, HERE)
        return schedule.render(request, cron, "kuberay", params) if cron else kuberay.render(request, params)


if __name__ == "__main__":
    for name in CASES:
        (HERE / f"{name}.yaml").write_text(golden(name), encoding="utf-8")
        print(HERE / f"{name}.yaml")
