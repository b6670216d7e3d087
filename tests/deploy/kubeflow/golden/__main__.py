"""Regenerate the golden files: `python -m tests.deploy.kubeflow.golden`. Review the diff before you commit it."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from raypath.components.models import bf16
from raypath.deploy.execution.workflow_loader import built_in_workflows
from raypath.deploy.kubeflow import launcher as kubeflow
from raypath.deploy.launchers import prepare

HERE = Path(__file__).parent
SETTINGS = {
    "kubeflow.image": "registry.example.com/raypath@sha256:" + "a" * 64,
    "kubeflow.store": "s3://bucket/team",
    "kubeflow.endpoint": "http://reviews-serve-svc.raypath:8000",
    "kubeflow.gpus": "1",
    "kubeflow.steps.read.memory": "4Gi",
}


@functools.cache
def golden(workflow: str) -> str:
    """A workflow's pipeline, but for the version of the compiler that made it and the precision of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(bf16.VARIABLE, raising=False)
        first = "read_prompts" if workflow == "batch_generation" else "read"
        settings = {name.replace(".read.", f".{first}."): value for name, value in SETTINGS.items()}
        _, request, params = prepare("kubeflow", workflow, settings, HERE)
        text = kubeflow.render(request, params)
    return re.sub(r"^sdkVersion: .*\n", "", text, flags=re.M)


if __name__ == "__main__":
    for name in built_in_workflows():
        (HERE / f"{name}.yaml").write_text(golden(name), encoding="utf-8")
        print(HERE / f"{name}.yaml")
