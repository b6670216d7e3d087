"""A workflow's run as MLflow shows it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from raypath.components.tracking.run import track
from raypath.deploy.execution.mlflow_run import dataset_of, describe, metrics_of, run_name, source_tags
from raypath.deploy.execution.ray_platform import RayTaskPlatform
from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus

STARTED = 1_796_047_500.0  # 30 November 2026, 14:05 UTC
METRICS = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.94, "ece": 0.02, "f1/good": 0.8}


def a_run(steps: list[StepState], uri: str = "data/reviews.csv", **fields: Any) -> Run:
    params = {"read.uri": uri, "finetune.lr": 1e-3, "finetune.epochs": 3}
    known = {"id": "r", "workflow": "text_classification", "settings_digest": "", "started": STARTED}
    return Run(**{**known, "params": params, "steps": steps, **fields})


def done(step: str, **artifact: Any) -> StepState:
    return StepState(name=step, status=StepStatus.DONE, artifact=artifact)


def evaluated(step: str, **metrics: float) -> StepState:
    return done(step, model={}, data={}, metrics=metrics)


def registered(step: str, **facts: Any) -> StepState:
    return done(step, name="topics", version=2, serving=2, **facts)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("data/reviews.csv", "reviews.csv, 30 Nov 14:05"),
        ("/srv/reviews/", "reviews, 30 Nov 14:05"),
        ("sample://reviews", "reviews, 30 Nov 14:05"),
        ("s3://bucket/rows/part.parquet", "part.parquet, 30 Nov 14:05"),
        ("", "text_classification, 30 Nov 14:05"),
        ("x" * 60, f"{'x' * 40}, 30 Nov 14:05"),
    ],
)
def test_a_name_that_a_person_recognises(uri: str, name: str) -> None:
    assert run_name(a_run([], uri)) == name


def test_the_source_is_the_workflow_and_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = source_tags(a_run([]))
    assert (found["mlflow.source.name"], found["mlflow.source.type"]) == ("text_classification", "LOCAL")
    assert "mlflow.source.git.commit" not in found
    for line in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m first"):
        subprocess.run(["git", *line.split()], check=True)
    assert len(source_tags(a_run([]))["mlflow.source.git.commit"]) == 40
    assert source_tags(a_run([], cluster="http://head:8265"))["mlflow.source.type"] == "JOB"


def test_metrics_and_data_of_steps() -> None:
    assert metrics_of(evaluated("judge", **METRICS, odd=float("nan"))) == {
        "evaluate/accuracy": 0.9,
        "evaluate/accuracy_low": 0.85,
        "evaluate/accuracy_high": 0.94,
        "evaluate/ece": 0.02,
    }
    assert metrics_of(registered("register", alias="champion", reason="", metrics=METRICS)) == {}
    assert metrics_of(done("finetune", task="t", base="b", metrics={"accuracy": 0.8})) == {"finetune/accuracy": 0.8}
    assert metrics_of(StepState(name="evaluate")) == {}
    read = done("read", source="s3://bucket/rows.csv", rows=7, digest="d")
    assert dataset_of(read) == {
        "name": "rows.csv", "digest": "d", "source": "s3://bucket/rows.csv", "context": "data", "rows": 7
    }  # fmt: skip
    assert dataset_of(done("load", source="s3://bucket/rows.csv", rows=7, digest="d")) == dataset_of(read)
    assert dataset_of(done("split", train={}, valid={}, test={}, digest="d")) is None
    assert dataset_of(StepState(name="read")) is None


@pytest.mark.parametrize("names", [("evaluate", "register", "serve"), ("judge", "publish", "deploy")])
def test_a_description_says_what_came_out_and_what_was_chosen(names: tuple[str, str, str]) -> None:
    steps = [
        evaluated(names[0], **METRICS),
        registered(names[1], alias="champion", reason="accuracy 0.9 > 0.8 of version 1"),
        done(names[2], url="http://127.0.0.1:8000", name="topics", version=2),
    ]
    defaults = {"read.uri": "sample://reviews", "finetune.lr": 1e-3, "finetune.epochs": 1}
    assert describe(a_run(steps, status=RunStatus.DONE), defaults).splitlines() == [
        "Registered as **[topics version 2](#/models/topics/versions/2)**, champion: accuracy 0.9 > 0.8 of version 1.",
        "",
        "In service at http://127.0.0.1:8000.",
        "",
        f"Plots of the evaluation: artifacts of the child run `{names[0]}`.",
        "",
        "| metric on the test split | value | 95% interval |",
        "| --- | --- | --- |",
        "| accuracy | 0.9000 | 0.8500 to 0.9400 |",
        "| ece | 0.0200 |  |",
        "",
        "Settings that are not the defaults:",
        "",
        "- `read.uri` = `data/reviews.csv`",
        "- `finetune.epochs` = `3`",
        "",
        "3 of 3 steps ran; the run is done.",
    ]


def test_a_description_of_a_run_that_failed() -> None:
    failed = StepState(name="read", status=StepStatus.FAILED, error="no such file; correct read.uri")
    run = a_run([failed, StepState(name="split")], status=RunStatus.FAILED)
    assert describe(run, run.params) == (
        "All settings are the defaults.\n\n`read` failed: no such file; correct read.uri\n\n"
        "1 of 2 steps ran; the run is failed."
    )
    many = {f"s.{n}": n for n in range(35)}
    assert describe(run.model_copy(update={"params": many}), {}).count("- `s.") == 30
    assert "- and 5 more" in describe(run.model_copy(update={"params": many}), {})


class Unconnected(RayTaskPlatform):
    """A platform without Ray and MLflow."""

    def mlflow(self) -> str:
        return ""


def test_runs_that_killed_processes_left_open_are_ended_with_the_workflows(tmp_path: Path) -> None:
    platform, run = Unconnected(tmp_path), a_run([], started=time.time())
    platform.start_tracking(run)
    tracking = platform.tracking("text_classification", "r")
    with track(tracking, name="read"):
        pass
    other = platform.tracking("text_classification", "r2")
    left = [track(tracking, name="tune"), track(tracking, name="trial-00", parent="r/tune"), track(other, name="tune")]
    for each in left:
        each.__enter__()
    platform.close()
    for each in left:
        assert each._file is not None
        each._file.close()
    found = {}
    for path in (tmp_path / "spool").glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[lines[0]["id"]] = lines[-1].get("status", lines[-1]["event"])
    assert found == {
        "r": "FINISHED",
        "r/read": "FINISHED",
        "r/tune": "KILLED",
        "r/tune/trial-00": "KILLED",
        "r2/tune": "open",
    }
