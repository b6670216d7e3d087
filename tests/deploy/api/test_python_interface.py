"""`import raypath`: a run, its results, the same predictions in process and over HTTP, promotion, plans."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from typing import Any

import pytest

from raypath.deploy.execution.run_history import load_runs
from raypath.deploy.store.audit import log
from tests.deploy.conftest import Programs

pytestmark = pytest.mark.slow


def test_a_run_returns_steps_metrics_and_the_endpoint(served: dict[str, Any]) -> None:
    assert served["status"] == "done"
    prepared = ("read", "split", "configure", "inspect", "preprocess", "extract")
    trained = ("tune", "finetune", "evaluate", "register", "serve")
    assert {step["name"]: step["status"] for step in served["steps"]} == dict.fromkeys((*prepared, *trained), "done")
    assert served["metrics"]["accuracy"] > 0.9, "the two classes share no word"
    assert served["release"]["name"] == "topics"
    assert served["endpoint"]["url"].startswith("http://127.0.0.1:")
    assert served["settings"]["finetune.epochs"] == 8


def test_the_same_call_reuses_every_step(programs: Programs, served: dict[str, Any]) -> None:
    found = programs.python("""
before = raypath.plan("text_classification", SETTINGS)
run = raypath.run("text_classification", SETTINGS)
kinds = {name: type(artifact).__name__ for name, artifact in run.artifacts.items()}
show([[s.action for s in before.steps], [s.status for s in run.steps], kinds, len(topics())])
""")
    assert found[0] == ["reuse"] * 11
    assert found[1] == ["reused"] * 11
    assert found[2]["finetune"] == "Model"
    assert found[2]["read"] == "Dataset"
    assert found[2]["serve"] == "Endpoint"
    assert found[3] == 2


def test_in_process_sync_and_async_predictions_agree(programs: Programs, served: dict[str, Any]) -> None:
    found = programs.python("""
import asyncio
texts = ["crisp and fresh and lovely", "stale and late and bland and broken"] * 3
model = raypath.load("models:/topics@champion")
folder = raypath.load(topics()[0].artifacts["finetune"].uri)
run = topics()[0]
with run.client() as client:
    sync, vectors, card, health = client.predict(texts), client.embed(texts), client.card(), client.health()
    one = client.predict(texts[0])
async def both():
    async with run.client() as client:
        found = await asyncio.gather(client.predict_async(texts), client.embed_async(texts), client.card_async())
        return *found, await client.health_async()
again = asyncio.run(both())
show({
    "sync": sync.model_dump(), "async": again[0].model_dump(), "local": model.predict(texts).model_dump(),
    "folder": folder.predict(texts).model_dump(), "one": one.model_dump(), "vectors": vectors.vectors,
    "async vectors": again[1].vectors,
    "local vectors": model.embed(texts).vectors, "tokens": [vectors.tokens, model.embed(texts).tokens],
    "card": [card == again[2], card.task, card.labels, card.metrics.get("accuracy")],
    "health": [health.status, again[3] == health],
})
""")
    sync = found["sync"]
    assert [p["label"] for p in sync["predictions"]] == ["praise", "complaint"] * 3
    assert sync["predictions"][0]["scores"] != sync["predictions"][1]["scores"]
    assert (found["local"]["model"], found["local"]["version"]) == ("topics", 1)
    for other in ("local", "folder", "async"):
        for got, wanted in zip(found[other]["predictions"], sync["predictions"], strict=True):
            assert got["label"] == wanted["label"]
            assert got["scores"] == pytest.approx(wanted["scores"], abs=1e-4)
    assert len(found["one"]["predictions"]) == 1
    for other in ("async vectors", "local vectors"):
        for got, wanted in zip(found[other], found["vectors"], strict=True):
            assert got == pytest.approx(wanted, abs=1e-4)
    assert found["tokens"][0] == found["tokens"][1] > 0
    assert found["card"] == [True, "text_classification", ["complaint", "praise"], served["metrics"]["accuracy"]]
    assert found["health"] == ["ok", True]


def test_a_changed_setting_is_planned_and_promoted_versions_are_served(programs: Programs, served: Any) -> None:
    found = programs.python("""
from raypath.workflows.text_classification import text_classification
params = text_classification.params_type().override(dict(topics()[0].settings, **{"finetune.epochs": 9}))
plan = raypath.plan(text_classification, params)
run = raypath.run(text_classification, params)
versions = raypath.models()
champion = next(v.version for v in versions if "champion" in v.aliases)
other = 1 if champion == 2 else 2
made = raypath.promote("topics", other)
with run.client() as client:
    answered = client.predict("crisp and fresh").version
back = raypath.rollback("topics")
status = raypath.status()
show({
    "plan": {s.name: [s.action, s.reason, s.seconds] for s in plan.steps}, "total": plan.seconds,
    "ran": [s.name for s in run.steps if s.status == "done"],
    "versions": len(versions), "made": made.model_dump(), "other": other, "answered": answered,
    "back": back.model_dump(),
    "status": status.model_dump(mode="json"), "run": repr(run),
})
""")
    assert found["plan"]["read"][0] == "reuse"
    assert found["plan"]["finetune"][:2] == ["run", "finetune.epochs 8 -> 9"]
    assert found["plan"]["finetune"][2] > 0
    assert found["plan"]["evaluate"][0] == "depends"
    assert found["total"] is None or found["total"] > found["plan"]["finetune"][2]
    assert "finetune" in found["ran"]
    assert re.fullmatch(
        r"<Run [^ ]+: done after [\d.]+ s, accuracy [\d.]+, .* topics version 2 @.*, http:.*>", found["run"]
    )
    ended, promoted, rolled_back = list(log.read(programs.home))[-3:]
    assert (ended.action, ended.outcome) == ("run.end", "ok")
    assert ended.detail["models"][0].startswith("topics/2@")
    assert (promoted.action, promoted.target) == ("model.promote", f"topics/{found['other']}")
    assert (rolled_back.action, rolled_back.detail["version"]) == ("model.rollback", found["back"]["version"])
    assert found["versions"] == 2
    assert found["made"]["version"] == found["answered"] == found["other"]
    assert found["made"]["serving"] == found["back"]["serving"] == "in service"
    assert found["back"]["version"] == found["made"]["previous"]
    [endpoint] = [each for each in found["status"]["endpoints"] if each["name"] == "topics"]
    assert (endpoint["replicas"], endpoint["status"]) == (1, "ok")
    assert {s["name"]: s["state"] for s in found["status"]["services"]} == {"ray": "up", "mlflow": "up"}


def test_an_interrupted_run_is_resumed_by_the_same_call(programs: Programs, served: Any) -> None:
    call = "raypath.run('text_classification', dict(SETTINGS, seed=1))"
    command, env = programs.command(f"""
try:
    {call}
except KeyboardInterrupt:
    show(topics()[-1].status)
""")
    process = subprocess.Popen(command, env=env, cwd=programs.folder, stdout=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 120
        while not any(
            run.params.get("seed") == 1 and run.step("finetune").status == "running" for run in _runs(programs)
        ):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out.strip().endswith('SHOWN"stopped"')
    found = programs.python(
        f"run = {call}; show([run.id, run.status, [s.name for s in run.steps if s.status == 'reused']])"
    )
    assert found[1] == "done"
    assert {"read", "split", "preprocess", "extract"} <= set(found[2])
    assert found[0] == _runs(programs)[-1].id, "it is the same run"


def _runs(programs: Programs) -> Any:
    return load_runs(programs.home)


def test_errors_are_one_clear_line(programs: Programs) -> None:
    found = programs.python("""
def line(call):
    try:
        call()
    except raypath.RaypathError as error:
        return type(error).__name__ + ": " + str(error)
@raypath.component(version=1)
def mine(ctx: raypath.Context, data: raypath.Dataset) -> raypath.Dataset: ...
from raypath.components.read import ReadParams, read
class P(raypath.Params):
    read: ReadParams = ReadParams(uri="data.csv")
@raypath.workflow
def flow(p: P) -> raypath.Dataset:
    return mine(read(p.read))
show([
    line(lambda: raypath.run("text_clasification")),
    line(lambda: raypath.run("text_classification", {"finetune": {"epoch": 3}})),
    line(lambda: raypath.run("text_classification", on="moon")),
    line(lambda: raypath.run("text_classification", fresh="fine-tune")),
    line(lambda: raypath.run("text_classification", 7)),
    line(lambda: raypath.run(flow)),
    line(lambda: raypath.load("nowhere")),
    line(lambda: raypath.up(tls="own.pem")),
])
""")
    for text, wanted in zip(
        found,
        [
            "GraphError: no workflow text_clasification; did you mean text_classification?",
            "ParamsError: unknown setting finetune.epoch; did you mean finetune.epochs?",
            "ParamsError: on='moon' is no launcher; use one of local, ray, kuberay, kubeflow",
            "ParamsError: --fresh fine-tune: no such step; did you mean finetune?",
            "ParamsError: settings is a int",
            "GraphError: component mine is defined in a notebook or in the script that runs; move it into a module",
            "ParamsError: no model folder nowhere; a registered one is models:/nowhere@champion",
            "UserError: certificates are for other machines",
        ],
        strict=True,
    ):
        assert text.startswith(wanted), text
