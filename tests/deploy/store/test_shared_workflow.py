"""The default workflow with its store on S3: what one machine made, another one takes."""

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.deploy.store.s3 import BUCKET, KEYS, Proxy, moto
from tests.tiny import tiny_bert
from tests.workflows.conftest import Project, write_rows

pytestmark = pytest.mark.heavy
OUTSIDE = {"register", "serve"}
"""Each home has an MLflow of its own here, so that what lives there is made again."""


def _states(project: Project) -> dict[str, str]:
    return {step.name: step.status for step in project.last()[0].steps}


def test_a_second_machine_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "data.csv", 300)
    settings = {
        "read.uri": str(tmp_path / "data.csv"),
        "read.text": "body",
        "read.label": "topic",
        "finetune.base": str(tiny_bert(tmp_path / "base")),
        "finetune.frozen_layers": "0",
        "finetune.epochs": "4",
        "finetune.lr": "1e-3",
        "finetune.threads": "1",
        "tune.trials": "2",
        "tune.rows": "64",
        "tune.lr": "1e-3,3e-3",
        "registry.name": "topics",
    }
    alone, one, two = (Project(tmp_path / name, settings) for name in ("alone", "one", "two"))
    seconds: dict[str, float] = {}

    def run(project: Project, what: str) -> str:
        project.folder.mkdir(exist_ok=True)
        project.raypath("up")
        started = time.monotonic()
        said = project.raypath(*project.line())
        seconds[what] = round(time.monotonic() - started, 1)
        steps = {s.name: round(s.seconds, 1) for s in project.last()[0].steps if s.status == "done"}
        print(f"{what}: {seconds[what]} s, of which {steps}")
        return said

    try:
        run(alone, "local")
        alone.raypath("down")
        with moto() as address:
            proxy = Proxy(address)
            for name, value in (KEYS | {"AWS_ENDPOINT_URL": proxy.address}).items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("RAYPATH_STORE", f"s3://{BUCKET}/shared")
            run(one, "first on S3")
            requests = len(proxy.seen)
            assert set(_states(one).values()) == {"done"}
            assert not one.records(), "records are on S3 alone"
            run(one, "again")
            assert set(_states(one).values()) == {"reused"}
            one.raypath("down")
            run(two, "second machine")
            states = _states(two)
            assert {name for name, status in states.items() if status != "reused"} <= OUTSIDE, states
            digests = [{s.name: (s.artifact or {})["digest"] for s in p.last()[0].steps} for p in (one, two)]
            assert {k: v for k, v in digests[0].items() if k not in OUTSIDE} == {
                k: v for k, v in digests[1].items() if k not in OUTSIDE
            }
            mine = json.loads((two.home / "services.json").read_text())
            assert mine, "it answers from its own services"
            print(f"{requests} requests of the first run")
            proxy.close()
    finally:
        for project in (alone, one, two):
            project.raypath("down")
            shutil.rmtree(project.home, ignore_errors=True)
