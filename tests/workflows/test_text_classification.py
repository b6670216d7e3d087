"""The whole workflow on a tiny model, killed and stopped at several points, then used, in one project."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from raypath.components.tracking import login
from raypath.deploy.execution.run_history import Run, load_runs
from raypath.deploy.local.state import environment, mlflow_secret, read
from tests.workflows.conftest import ROOT, WORDS, Project

pytestmark = pytest.mark.slow


def _running(step: str, after: float = 0.0) -> Any:
    def true(run: Run) -> bool:
        state = run.step(step)
        return state.status == "running" and time.time() - state.started >= after

    return true


def _tries(project: Project) -> Any:
    """The search runs and its first trial has begun."""

    def true(run: Run) -> bool:
        state = run.step("tune")
        return state.status == "running" and any((project.home / "scratch" / state.key).glob("trial-*"))

    return true


def _has_checkpoint(project: Project) -> Any:
    """Fine-tuning runs and has a checkpoint that is not there yet."""
    scratch = project.home / "scratch"
    before = {path.parent for path in scratch.glob("*/last/step-*/manifest.json")}

    def true(run: Run) -> bool:
        state = run.step("finetune")
        made = (scratch / state.key).glob("last/step-*/manifest.json")
        return state.status == "running" and any(path.parent not in before for path in made)

    return true


def _step_process(home: Path, step: str) -> psutil.Process:
    """The Ray worker that runs a step of this home."""
    ours = str(read(home).ray.pid)  # type: ignore[union-attr]
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or [])
        if title.startswith(f"ray::step:{step}") and any(str(p.pid) == ours for p in process.parents()):
            return process
    raise AssertionError(f"no process runs {step}")


def _client(project: Project) -> Any:
    from mlflow import MlflowClient

    server = read(project.home).mlflow
    assert server is not None
    login.remember(server.address, mlflow_secret(project.home))
    login.install()
    return MlflowClient(server.address)


def _kill_at(project: Project, *points: tuple[Callable[[], Any], int]) -> dict[str, float]:
    """Kill or stop one run after the other; no committed step is run again. Returns the records of the last one."""
    before: dict[str, float] = {}
    for point, sign in points:
        said = project.kill_when(project.line(), point(), sign)
        if sign != signal.SIGKILL:
            assert said.endswith("raypath: interrupted; run the same command again to resume\n"), said
            assert "Traceback" not in said
            assert "PC: @" not in said
            [run] = project.last()
            assert run.status == "stopped"
            assert run.step("finetune").status == "stopped"
        now = project.records()
        assert {k: now[k] for k in before} == before, "a committed step was run again"
        before = now
    return before


@pytest.mark.heavy
def test_killed_while_it_reads_and_registers_it_goes_on(project: Project) -> None:
    _kill_at(
        project,
        (lambda: _running("read", 0.3), signal.SIGKILL),
        (lambda: _running("register", 0.5), signal.SIGKILL),
    )
    assert "done in" in project.raypath(*project.line())
    assert len(project.records()) == 11


@pytest.mark.timeout(900)
def test_killed_and_stopped_at_several_points_it_goes_on_and_repeats_nothing(project: Project) -> None:
    before = _kill_at(
        project,
        (lambda: _tries(project), signal.SIGKILL),
        (lambda: _has_checkpoint(project), signal.SIGKILL),
        (lambda: _has_checkpoint(project), signal.SIGTERM),
        (lambda: _running("finetune"), signal.SIGINT),
    )
    out = project.raypath(*project.line())
    assert "done in" in out
    now = project.records()
    assert {k: now[k] for k in before} == before
    assert len(now) == 11
    [run] = load_runs(project.home)
    assert {s.name: s.status for s in run.steps}["read"] == "reused"


def test_fine_tuning_went_on_from_its_checkpoint(project: Project) -> None:
    """Every step has one point in MLflow: none lost by the kills, none twice."""
    client = _client(project)
    [run] = project.last()
    experiment = client.get_experiment_by_name("text_classification")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    whole = next(r for r in runs if r.data.tags["raypath.id"] == run.id)
    parent = whole.info.run_id
    by_name = {r.info.run_name: r for r in runs}
    assert set(by_name) >= {whole.info.run_name, *(s.name for s in run.steps)}
    assert all(by_name[s.name].data.tags["mlflow.parentRunId"] == parent for s in run.steps)
    assert {"evaluate/macro_f1", "finetune/accuracy"} <= set(whole.data.metrics)
    trials = [r for r in runs if r.data.tags.get("raypath.kind") == "trial"]
    assert len(trials) >= 2
    assert {r.data.tags["mlflow.parentRunId"] for r in trials} == {by_name["tune"].info.run_id}
    steps = [m.step for m in client.get_metric_history(by_name["finetune"].info.run_id, "train/loss")]
    assert sorted(steps) == list(range(1, len(steps) + 1))
    assert len(steps) > 50
    inputs = by_name["finetune"].inputs.dataset_inputs
    assert {t.value for i in inputs for t in i.tags} == {"train", "valid"}
    assert {r.info.status for r in runs} == {"FINISHED"}


def test_the_endpoint_answers_with_the_users_own_labels(project: Project) -> None:
    [run] = project.last()
    endpoint = run.step("serve").artifact
    assert endpoint is not None
    assert project.ask(f"{endpoint['url']}/healthz")["version"] == 1
    texts = ["lovely, great, tasty, 很好, fresh, 😊", "awful, stale, broken, 差, late"]
    answer = project.ask(f"{endpoint['url']}/predict", {"text": texts})
    assert {p["label"] for p in answer["predictions"]} <= set(WORDS)
    assert len(answer["predictions"]) == 2
    assert "/predict" in project.ask(f"{endpoint['url']}/openapi.json")["paths"]


def test_a_run_that_needs_nothing_runs_nothing(project: Project) -> None:
    before = project.records()
    out = project.raypath(*project.line())
    assert "11 of 11 steps reused" in out
    assert project.records() == before


def test_the_registered_model_opens_without_pickle_and_without_us(project: Project, tmp_path: Path) -> None:
    code = """
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/topics@champion")
print(model.predict(pd.DataFrame({"text": ["lovely great 很好"]})).to_json(orient="records", force_ascii=False))
from transformers import AutoModelForSequenceClassification
from mlflow.artifacts import download_artifacts
import glob, os
place = download_artifacts("models:/topics@champion")
folder = os.path.dirname(glob.glob(place + "/**/model.safetensors", recursive=True)[0])
print(AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels)
print(glob.glob(place + "/**/*.pkl", recursive=True))
"""
    env = {**os.environ, **environment(project.home), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    prediction, labels, pickles = done.stdout.strip().splitlines()[-3:]
    assert json.loads(prediction)[0]
    assert labels == "3"
    assert pickles == "[]"


def test_a_file_is_predicted_and_chinese_and_emoji_survive(project: Project) -> None:
    out = project.raypath("predict", "models:/topics@champion", "data.csv", "-s", "read.text=body", "-o", "out.jsonl")
    assert "300 predictions in out.jsonl" in out
    rows = [json.loads(line) for line in (project.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 300
    assert {row["predicted"] for row in rows} <= set(WORDS)
    assert rows[0]["text"].startswith("0: ")
    assert any("💔" in row["text"] for row in rows)
    assert "exists; remove it" in project.raypath(
        "predict", "models:/topics@champion", "data.csv", "-s", "read.text=body", "-o", "out.jsonl", status=2
    )


def test_a_worse_model_does_not_take_the_place_of_the_champion(project: Project) -> None:
    # Nothing is learnt at this rate, and MLflow and the step's process die on the way: the run goes on.
    line = project.line(tune__trials=0, finetune__lr="1e-9", finetune__epochs=3)
    begun = _has_checkpoint(project)
    process = project.start(*line)
    try:
        while not any(begun(run) for run in project.last()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        server = read(project.home).mlflow
        assert server is not None
        psutil.Process(server.pid).kill()
        _step_process(project.home, "finetune").kill()
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 0, out + err
    assert "version 2 @challenger" in out
    assert "topics version 1" in out
    [run] = project.last()
    assert run.step("finetune").attempts == 2
    assert run.step("finetune").status == "done"
    client = _client(project)
    experiment = client.get_experiment_by_name("text_classification")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parent = next(r for r in runs if r.data.tags["raypath.id"] == run.id)
    assert parent.info.run_name.startswith("data.csv, ")
    assert parent.data.tags["mlflow.source.name"] == "text_classification"
    assert "Registered as **[topics version 2](#/models/topics/versions/2)**" in parent.data.tags["mlflow.note.content"]
    assert [each.dataset.name for each in parent.inputs.dataset_inputs] == ["data.csv"]
    assert 0 <= parent.data.metrics["evaluate/accuracy"] <= 1
    mine = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    tuned = next(r for r in mine if r.info.run_name == "finetune")
    steps = sorted(m.step for m in client.get_metric_history(tuned.info.run_id, "train/loss"))
    assert steps == list(range(1, len(steps) + 1)), "the points noted while MLflow was away are there, none twice"


def test_a_version_is_promoted_and_rolled_back(project: Project) -> None:
    assert "version 2 is champion" in project.raypath("promote", "topics", "2")
    listed = project.raypath("models")
    assert any("2" in line and "@champion" in line for line in listed.splitlines())
    assert "version 1 is champion again" in project.raypath("rollback", "topics")
    assert "did you mean topics" in project.raypath("promote", "topic", "1", status=2)


def test_status_and_runs_say_what_there_is(project: Project) -> None:
    status = project.raypath("status")
    assert "endpoint" in status
    assert "topics version" in status
    last = project.raypath("runs", "last")
    assert "finetune.epochs 8 -> 3" in last
    assert ROOT.name not in project.raypath("runs")
