"""The default workflow as a user starts it on a cluster of `Nodes`, and what is asked of its runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from raypath.deploy.execution.run_history import Run, load_runs
from raypath.deploy.local import services
from tests.chaos.cluster import Nodes
from tests.deploy.store.s3 import KEYS, moto
from tests.mlflow_login import write_token
from tests.tiny import tiny_bert
from tests.workflows.conftest import ROOT

SETTINGS = {
    "read.uri": "data.csv",
    "read.text": "body",
    "read.label": "topic",
    "finetune.base": "base",
    "finetune.workers": 2,
    "finetune.frozen_layers": 0,
    "finetune.threads": 1,
}
SAME = ("read", "split", "preprocess", "inspect", "extract", "finetune", "evaluate", "predict")
"""Steps whose results are the same, whatever happens to nodes; those of the others name a time, an address or a run."""


def training_settings(home: Path, mlflow: str) -> dict[str, object]:
    """Settings of a run whose training is long enough to lose a node; the home names the model too."""
    return {
        "ray.home": home,
        "ray.mlflow": mlflow,
        "preprocess.max_length": 32,
        "finetune.checkpoint_seconds": 1,
        "registry.name": home.name,
        "serve.cpus": 0.5,
    }


def repository(folder: Path, *ignored: str) -> Path:
    """Make a folder a git repository that has a base model too; what is ignored is not sent to the cluster."""
    tiny_bert(folder / "base")
    (folder / ".gitignore").write_text("".join(f"{name}\n" for name in (".raypath/", *ignored)))
    for line in ("git init -q", "git add -A"):
        subprocess.run(line.split(), cwd=folder, check=True)
    return folder


@contextmanager
def nodes_apart(folder: Path, **env: str) -> Iterator[tuple[Nodes, str, str]]:
    """Start two nodes that share an S3 server only, each with a folder `node` of its own; yields nodes, S3's URL and
    MLflow's. env: of the nodes.
    """
    home = folder / ".raypath"
    write_token(home)
    mlflow = services.up(home, ray=False).mlflow
    assert mlflow is not None
    try:
        with moto() as s3, Nodes(head=0, env={**KEYS, **env}) as nodes:
            for name in ("one", "two"):
                nodes.add(name, own=folder / "node")
            yield nodes, s3, mlflow.address
    finally:
        services.down(home)


def start(
    folder: Path,
    nodes: Nodes,
    settings: Mapping[str, object],
    out: int | None = None,
    workflow: str = "",
    **env: str,
) -> subprocess.Popen[str]:
    """Begin the default workflow with SETTINGS and these, or another with these alone.

    out: where its lines go, by default to our own.
    """
    wanted = {**({} if workflow else SETTINGS), **settings}
    pairs = [part for key, value in wanted.items() for part in ("-s", f"{key}={value}")]
    line = ["run", workflow or "text_classification", "--on", "ray", "--address", nodes.address, *pairs]
    known = {**os.environ, **nodes.env, "PYTHONPATH": str(ROOT), "RAYPATH_HOME": str(folder / ".raypath"), **env}
    command = [sys.executable, "-m", "raypath.deploy.cli.main", *line]
    return subprocess.Popen(command, cwd=folder, env=known, stdout=out, stderr=subprocess.STDOUT, text=True)


def end(client: subprocess.Popen[str], status: int = 0, seconds: float = 600) -> str:
    """Wait until it ends, with this status; returns what it said where that went to a pipe."""
    try:
        said, _ = client.communicate(timeout=seconds)
    finally:
        client.kill()
    assert client.returncode == status, said
    return said or ""


def trained_on(nodes: Nodes, client: subprocess.Popen[str]) -> set[str]:
    """The nodes where train workers were seen until it ended."""
    seen: set[str] = set()
    while client.poll() is None:
        seen.update(nodes.running("ray::RayTrainWorker"))
        time.sleep(0.2)
    return seen


def checkpoints(home: Path) -> list[Path]:
    """Whole ones of a training under way, in the home that the nodes share."""
    return list((home / "scratch").glob("*/last/step-*/manifest.json"))


def last(folder: Path) -> Run:
    """The run that was begun last."""
    return load_runs(folder / ".raypath")[-1]


def digests(run: Run) -> dict[str, str]:
    """Digests of the outputs of the steps in SAME."""
    return {s.name: s.artifact["digest"] for s in run.steps if s.artifact and s.name in SAME}
