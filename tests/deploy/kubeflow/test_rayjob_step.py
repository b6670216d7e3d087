"""A step of a pipeline as a RayJob: against a real HTTPS server in the Kubernetes API's place, and on a real Ray."""

import functools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from raypath.components import PlatformError, UserError
from raypath.deploy.execution.workflow_loader import load_workflow
from raypath.deploy.kubeflow import container, pipeline, rayjob_step, single_step
from raypath.deploy.local import services as local
from raypath.deploy.local import state as services
from tests.chaos.cluster import HEAD, Nodes
from tests.deploy.kubernetes.rayjobs import rayjobs
from tests.k8s.manifests import IMAGE, check_pod, pods, validate
from tests.tiny import tiny_bert
from tests.workflows.conftest import ROOT, write_rows

FLOW = "tests.deploy.kubeflow.kubeflow_flow:judged"
ON_RAY = {"image": IMAGE, "store": "s3://bucket/team", "deadline": 120.0, "endpoint": False, "cpus": 2, "workers": 2}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SimpleNamespace]:
    with rayjobs(tmp_path / "account") as cluster:
        cluster.work = lambda job: None
        yield cluster


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment as it was, after a container has put its own into this process."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ |= {"RAYPATH_HOME": str(tmp_path / "home"), "RAYPATH_STORE": str(tmp_path / "store")}


@pytest.fixture
def step(clean: None, tmp_path: Path, cluster: SimpleNamespace) -> SimpleNamespace:
    """The step `read` of a small workflow, and a function that runs it as a RayJob."""
    write_rows(tmp_path / "data.csv", 20)
    flow = load_workflow(FLOW)
    graph = flow.trace(flow.params_type().override({"read.uri": str(tmp_path / "data.csv")}))
    plan = {"settings": graph.params.model_dump_json(), "run": "r1", "fresh": []}
    one = single_step.prepare(graph, "read", {}, plan, single_step.prepare_environment(tmp_path / "home"))
    words = ["--shape", pipeline.shape(graph), "--plan", json.dumps(plan), "--keys", "{}"]
    place = {"address": cluster.address, "account": cluster.account, "poll": 0.05}

    def run(**more: Any) -> None:
        rayjob_step.run(one, FLOW, words, {**ON_RAY, **more}, **place)

    return SimpleNamespace(one=one, run=run, words=words)


def test_a_step_is_done_by_a_rayjob_that_a_cluster_accepts(step: SimpleNamespace, cluster: SimpleNamespace) -> None:
    cluster.work = lambda job: single_step.run(step.one)
    step.run()
    [job] = cluster.objects.values()
    assert single_step.committed(step.one).rows == 20  # type: ignore[attr-defined]
    assert single_step.reusable(step.one) is not None
    said = shlex.split(job["spec"]["entrypoint"])
    assert said[:7] == ["python", "-m", "raypath.deploy.kubeflow.container", "driver", FLOW, "--step", "read"]
    assert said[7:] == step.words
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert (group["replicas"], group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]) == (2, "2")
    for pod in pods(job):
        check_pod(pod)
    assert validate(yaml.safe_dump({k: v for k, v in job.items() if k != "status"})).endswith("1 passed, 0 failed")


def test_a_container_that_is_tried_again_finds_its_rayjob(step: SimpleNamespace, cluster: SimpleNamespace) -> None:
    done: list[str] = []
    cluster.work = lambda job: done.append(job["metadata"]["name"])
    step.run()
    step.run()
    assert len(done) == 1
    # One that failed is made anew.
    [job] = cluster.objects.values()
    job["status"] = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}
    step.run()
    assert len(done) == 2


def test_what_goes_wrong_is_one_line(step: SimpleNamespace, cluster: SimpleNamespace) -> None:
    def fail(job: dict[str, Any]) -> None:
        raise OSError("no node has 2 GPUs")

    cluster.work = fail
    with pytest.raises(PlatformError, match="no node has 2 GPUs; kubectl logs"):
        step.run()
    cluster.objects.clear()

    def tell(job: dict[str, Any]) -> None:
        # As Ray has it: the end of the driver's log below its own words.
        raise OSError(
            "Job entrypoint command failed, last logs:\n2026 INFO starting\nraypath: step read: no column x\n"
        )

    cluster.work = tell
    with pytest.raises(PlatformError, match=r"RayJob read-\w+: step read: no column x; kubectl logs"):
        step.run()
    cluster.objects.clear()
    cluster.work = lambda job: cluster.objects.clear()
    with pytest.raises(PlatformError, match="was deleted; run the pipeline again"):
        step.run()
    cluster.work = lambda job: None
    step.run()
    with pytest.raises(PlatformError, match="step read: the step ended without an output"):
        single_step.committed(step.one)
    cluster.allowed = False
    with pytest.raises(UserError, match="pipeline-runner cannot create resource rayjobs; allow the service account"):
        step.run()


@pytest.mark.parametrize("how", ["late", "stopped"])
def test_a_rayjob_that_nobody_waits_for_is_taken_away(
    how: str, step: SimpleNamespace, cluster: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event

    end = Event()
    cluster.work = lambda job: end.wait(20)
    if how == "late":
        with pytest.raises(PlatformError, match="did not end within 1 s"):
            step.run(deadline=1.0)
    else:

        def stop(_: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(rayjob_step.time, "sleep", stop)
        with pytest.raises(KeyboardInterrupt):
            step.run()
    end.set()
    assert cluster.calls[-1] == "DELETE"
    assert not cluster.objects


def test_a_driver_on_a_head_without_cores_has_its_step_done_on_a_node(clean: None, tmp_path: Path) -> None:
    """As in the manifests: the head runs the driver, and only other nodes have cores or GPUs."""
    flow = load_workflow("tests.deploy.kubeflow.kubeflow_flow:located")
    graph = flow.trace(flow.params_type())
    plan = {"settings": graph.params.model_dump_json(), "run": "r1", "fresh": []}
    # Nodes that mount one folder.
    os.environ["RAYPATH_HOME"] = os.environ["RAYPATH_STORE"]
    store = single_step.prepare_environment(tmp_path / "store", cluster=True)
    one = single_step.prepare(graph, "placed", {}, plan, store)
    words = ["driver", "tests.deploy.kubeflow.kubeflow_flow:located", "--step", "placed", "--plan", json.dumps(plan)]
    with Nodes(head=0, cpus=3, env={"PYTHONPATH": str(ROOT)}) as nodes:
        nodes.add("one")
        env = {**os.environ, **nodes.env, "RAY_ADDRESS": f"{HEAD}:{nodes.port}", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "raypath.deploy.kubeflow.container", *words, "--keys", "{}"]
        # Elsewhere: the current folder is searched last, and a package of samples installs a module `tests`.
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert single_step.committed(one).rows == 3  # type: ignore[attr-defined]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A real Ray head, and what a driver on it has in its environment."""
    home = tmp_path / "head"
    found = local.up(home, mlflow=False, dashboard=False)
    assert found.ray is not None
    yield {**services.environment(home), "RAY_ADDRESS": found.ray.address, "RAYPATH_HOME": str(home)}
    local.down(home)


@pytest.mark.heavy
def test_two_workers_of_a_real_ray_train_a_step_of_the_pipeline(
    head: dict[str, str], clean: None, cluster: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "data.csv", 60)
    flow = load_workflow(FLOW)
    changes = {
        "read.uri": str(tmp_path / "data.csv"), "finetune.base": str(tiny_bert(tmp_path / "base")),
        "finetune.workers": 2, "finetune.epochs": 1,
    }  # fmt: skip
    graph = flow.trace(flow.params_type().override(changes))
    plan = {"settings": graph.params.model_dump_json(), "run": "r1", "fresh": []}
    ran: list[str] = []

    def kuberay(job: dict[str, Any]) -> None:
        words = shlex.split(job["spec"]["entrypoint"])
        env = {**os.environ, **head, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        done = subprocess.run(
            [sys.executable, *words[1:]], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        ran.append(job["metadata"]["name"])
        assert done.returncode == 0, done.stdout + done.stderr

    cluster.work = kuberay
    place = {"address": cluster.address, "account": cluster.account, "poll": 0.2}
    monkeypatch.setattr(rayjob_step, "run", functools.partial(rayjob_step.run, **place))
    keys: dict[str, str] = {}

    def contain(name: str, *more: str) -> Callable[[str], str]:
        """Run a step's container as Kubeflow does; returns how to read its output parameters."""
        node = next(node for node in graph.nodes if node.name == name)
        given = {a: {"artifacts": [{"metadata": {"raypath_key": keys[r.step]}}]} for a, r in pipeline.references(node)}
        out = tmp_path / "kfp" / f"{name}-{len(ran)}"
        asked = {n: {"outputFile": str(out / n)} for n in ("key", "reused")}
        message = {
            "inputs": {"parameterValues": {"plan": json.dumps(plan)}, "artifacts": given},
            "outputs": {"parameters": asked},
        }
        words = ["step", FLOW, "--step", name, "--shape", pipeline.shape(graph), *more]
        assert container.main([*words, "--executor_input", json.dumps(message)]) == 0
        keys[name] = (out / "key").read_text()
        return lambda parameter: (out / parameter).read_text()

    for name in ("read", "split", "preprocess"):
        contain(name)
    on_ray = json.dumps({**ON_RAY, "store": "/store"})
    assert contain("finetune", "--ray", on_ray)("reused") == "false"
    assert len(ran) == 1
    assert contain("finetune", "--ray", on_ray)("reused") == "true"
    assert len(ran) == 1, "a step that is done asks for no RayJob"
