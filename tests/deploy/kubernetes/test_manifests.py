"""Manifests of KubeRay as a whole, and the messages of kubectl, of the service and of the job that starts another."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components import ParamsError, PlatformError, Unavailable, UserError
from raypath.components.serving.params import ServeParams
from raypath.deploy.kubernetes import kubectl, manifests, mlflow_server, serve_app, start_rayjob
from raypath.deploy.kubernetes.quantities import integral, parse
from raypath.deploy.kubernetes.rayjobs import RayJobClient, RayJobState, client_for
from tests.deploy.kubernetes.golden.__main__ import CASES, HERE, golden
from tests.deploy.kubernetes.rayjobs import rayjobs

CONTEXT = "check `kubectl config current-context`"


@pytest.mark.parametrize("name", CASES)
def test_manifests_are_as_their_golden_file(name: str) -> None:
    """Regenerate them with `python -m tests.deploy.kubernetes.golden`."""
    assert golden(name) == (HERE / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that writes its arguments and input to files, and prints `out` and `error` with the status in it."""
    script = tmp_path / "kubectl"
    text = 'printf "%s\\n" "$@" > words; cat > given; cat out; cat error >&2; exit $(cat status)'
    script.write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
    script.chmod(0o755)
    for name in ("out", "error"):
        (tmp_path / name).touch()
    (tmp_path / "status").write_text("0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("status", "out", "error", "says"),
    [
        ("0", "yes\n", "", ""),
        ("1", "", "Error: connection refused\n", f"no cluster answers: Error: connection refused; {CONTEXT}"),
        (
            "1",
            "",
            "Unable to connect to the server: x",
            f"no cluster answers: Unable to connect to the server: x; {CONTEXT}",
        ),
        ("1", "", "dial: lookup a: no such host", f"no cluster answers: dial: lookup a: no such host; {CONTEXT}"),
        (
            "0",
            "yes",
            "Warning: the server doesn't have a resource type 'rayjobs'",
            "the cluster does not know RayJobs; install the KubeRay operator; see k8s/README.md",
        ),
        (
            "1",
            "no",
            "",
            f"the cluster rejects the job: you are not allowed to create RayJobs in this namespace; {CONTEXT}",
        ),
        ("1", "no", "first\n forbidden \n\n", f"the cluster rejects the job: forbidden; {CONTEXT}"),
    ],
)
def test_a_cluster_is_checked(tool: Path, status: str, out: str, error: str, says: str) -> None:
    for name, text in (("status", status), ("out", out), ("error", error)):
        (tool / name).write_text(text)
    if says:
        with pytest.raises(UserError) as told:
            kubectl.check("-n", "team")
        assert str(told.value) == says
    else:
        kubectl.check("-n", "team")
    assert (tool / "words").read_text().split() == ["auth", "can-i", "create", "rayjobs.ray.io", "-n", "team"]


def test_objects_are_applied_and_created(tool: Path) -> None:
    kubectl.apply({"kind": "A"})
    assert (tool / "words").read_text().split() == ["apply", "-f", "-"]
    assert json.loads((tool / "given").read_text()) == {"kind": "A"}
    (tool / "out").write_text("made-x1\n")
    assert kubectl.create({"kind": "B"}) == "made-x1"
    assert (tool / "words").read_text().split() == ["create", "-o", "jsonpath={.metadata.name}", "-f", "-"]
    (tool / "out").write_text("here\n")
    jobs = client_for("team")
    assert (jobs.address, jobs.where) == ("kuberay://here/team", ("-n", "team", "--context", "here"))
    assert (tool / "words").read_text().split() == ["config", "current-context"]
    assert RayJobClient("kuberay:///team").where == ("-n", "team")
    (tool / "out").write_text("")
    assert jobs.status("j") is None
    words = "get rayjob j --ignore-not-found -o json -n team --context here"
    assert (tool / "words").read_text().split() == words.split()
    jobs.stop("j")
    words = "delete rayjob j --ignore-not-found --wait=false -n team --context here"
    assert (tool / "words").read_text().split() == words.split()
    assert jobs.status("j") == ("STOPPED", "it was deleted")
    (tool / "status").write_text("1")
    (tool / "error").write_text(f"one\n{'x' * 400}\n")
    with pytest.raises(PlatformError) as told:
        kubectl.apply({})
    assert str(told.value) == f"kubectl: {'x' * 300}; {CONTEXT}"
    with pytest.raises(Unavailable) as away:
        jobs.get("j")
    assert str(away.value) == str(told.value)
    (tool / "kubectl").write_text("#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(PlatformError) as late:
        kubectl.kubectl("get", timeout=0.05)
    assert str(late.value) == "kubectl get took more than 0.05 s; check that the cluster is reachable"


@pytest.mark.parametrize(
    ("deployment", "job", "status"),
    [
        ("Complete", "SUCCEEDED", "SUCCEEDED"),
        ("Complete", "FAILED", "FAILED"),
        ("Complete", "STOPPED", "STOPPED"),
        ("Complete", "", "SUCCEEDED"),
        ("Failed", "", "FAILED"),
        ("ValidationFailed", "", "FAILED"),
        ("Running", "SUCCEEDED", "RUNNING"),
        ("Retrying", "FAILED", "PENDING"),
        ("", "", "PENDING"),
    ],
)
def test_the_state_of_a_job(deployment: str, job: str, status: str) -> None:
    found = {"jobDeploymentStatus": deployment, "jobStatus": job, "message": f"\n {'m' * 400}\nmore", "jobId": "i"}
    state = RayJobState.from_manifest(
        {"spec": {"activeDeadlineSeconds": 5}, "status": {**found, "rayClusterName": "c"}}
    )
    assert (state.status, state.attempt, state.cluster, state.deadline) == (status, "i", "c", 5.0)
    assert str(state) == " ".join(filter(None, [deployment, job, "m" * 300]))
    empty = RayJobState.from_manifest({"spec": {}})
    assert (empty.status, empty.deadline, str(empty)) == ("PENDING", float("inf"), "")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "a service needs a model and an MLflow server; set name and $MLFLOW_TRACKING_URI"),
        ({"tracking": ""}, "a service needs a model and an MLflow server; set name and $MLFLOW_TRACKING_URI"),
        ({"serve": {"open": True}}, "serve.open works on one machine only; leave it unset; clients send a key"),
        ({"access": ""}, "no folder with API keys is set; set access"),
        ({"serve": {"log_predictions": 0.5}}, "serve.log_predictions has no folder; set predictions"),
        (
            {"serve": {"replicas": 2, "max_replicas": 1}},
            "replicas=2 with max_replicas=1; set max_replicas to at least replicas; replicas=0 needs max_replicas",
        ),
    ],
)
def test_arguments_of_a_service(changes: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(serve_app, "_application", lambda params, tracking: (params.name, tracking))
    given = {"name": "m", "tracking": "http://m:1", "access": "/keys"}
    assert serve_app.build(given) == ("m", "http://m:1")
    with pytest.raises(ParamsError) as told:
        serve_app.build({**given, **changes})
    assert str(told.value) == says
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m:2")
    assert serve_app.build({**given, "tracking": ""}) == ("m", "http://m:2")


def test_a_manifest_has_the_arguments_that_differ() -> None:
    serve = ServeParams(replicas=2, max_replicas=3, route="/m").model_dump(mode="json")
    places = {"access": "/etc/raypath/access", "usage": "/usage", "predictions": "/usage/predictions"}
    changed = {"replicas": 2, "max_replicas": 3, "route": "/m"}
    assert serve_app.arguments("m", serve) == {"name": "m", **places, "serve": changed}


def test_parts_of_a_manifest_that_is_another(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as told:
        manifests.by_name([{"name": "a"}], "b")
    assert str(told.value) == "the manifest has no name b; compare it with k8s/base of this version"
    with pytest.raises(PlatformError) as absent:
        manifests.template(tmp_path / "a.yaml")
    assert str(absent.value) == f"cannot read {tmp_path}/a.yaml: No such file or directory; reinstall raypath"
    for name in ("-a", "a-", "1a", "A", ""):
        with pytest.raises(UserError) as wrong:
            manifests.checked_name(name, 5, "kuberay.name")
        what = f"{name!r} is not a valid Kubernetes name: use a-z, 0-9 and -, a letter first"
        assert str(wrong.value) == f"{what}; set kuberay.name"
    assert manifests.checked_name("a-b1", 4, "kuberay.name") == "a-b1"
    assert manifests.text([{"a": "one\ntwo\n", "b": "x " * 400}]) == f"a: |\n  one\n  two\nb: '{'x ' * 400}'\n"


@pytest.mark.parametrize(
    ("given", "whole"), [("8Gi", "8Gi"), ("1.5Gi", "1536Mi"), ("0.0001Gi", "1Mi"), ("2.5Mi", "3Mi")]
)
def test_quantities_without_a_point(given: str, whole: str) -> None:
    assert integral(given) == whole


def test_units() -> None:
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
    assert {unit: parse(f"3{unit}") for unit in units} == {unit: 3 * value for unit, value in units.items()}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SimpleNamespace]:
    with rayjobs(tmp_path / "account") as found:
        yield found


def test_a_copy_that_cannot_be_started(
    cluster: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(kind: type[Exception], *args: Any) -> str:
        with pytest.raises(kind) as told:
            start_rayjob.main(*args)
        return str(told.value)

    name = "x" * 48
    assert message(UserError, "t", name) == f"{name} has 48 characters, and KubeRay allows 47; choose a shorter name"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    outside = "outside, use `kubectl create job NAME --from=cronjob/...`"
    assert message(UserError, "t", "n") == f"not running in a pod; {outside}"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert start_rayjob.api_address() == "https://10.0.0.1:443"
    found = message(UserError, "t", "n", "https://a", tmp_path / "none")
    assert found.startswith("cannot read the service account: [Errno 2]")
    assert found.endswith("; mount its token, as k8s/base/cronjob.yaml does")
    where = (cluster.address, cluster.account)
    again = "apply k8s/ or `raypath schedule` again"
    assert message(PlatformError, "t", "n", *where) == f"RayJob t: not found; {again}"
    cluster.allowed = False
    denied = "pipeline-runner cannot create resource rayjobs"
    assert message(PlatformError, "t", "n", *where) == f"RayJob t: {denied}; {again}"
    answers = iter([(200, {}), (500, {})])
    monkeypatch.setattr(start_rayjob, "call", lambda *_: next(answers))
    assert message(PlatformError, "t", "n", *where) == "copies of RayJob t: no reason given; apply k8s/ again"
    template = {"apiVersion": "ray.io/v1", "metadata": {"name": "t", "namespace": "ns"}, "spec": {"a": 1}}
    answers = iter([(200, template), (200, {}), (422, {"message": "too long"})])
    assert message(PlatformError, "t", "n", *where) == "RayJob n was rejected: too long; check RayJob t"
    busy = {"metadata": {"name": "t-1"}, "status": None}
    answers = iter([(200, template), (200, {"items": [busy]})])
    assert start_rayjob.main("t", "n", *where) == "n not started: t-1, another copy of t, has not finished"
    answers = iter([(200, template), (200, {}), (409, {})])
    assert start_rayjob.main("t", "n", *where) == "n was started before"


def test_the_command_of_a_cronjob_ends_with_one_line() -> None:
    command = [sys.executable, "-m", "raypath.deploy.kubernetes.start_rayjob", "t", "x" * 48]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    message = f"raypath: {'x' * 48} has 48 characters, and KubeRay allows 47; choose a shorter name\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_a_link_to_mlflow_in_a_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAYPATH_MLFLOW_TOKEN_FILE", str(tmp_path / "none"))
    assert mlflow_server.main(["link", "http://localhost:5000/"]) in (1, 2)
    assert capsys.readouterr().err.startswith("raypath: ")
    (tmp_path / "none").write_text("a" * 64)
    assert mlflow_server.main(["link", "http://localhost:5000/"]) == 0
    assert capsys.readouterr().out.startswith("http://localhost:5000/login?code=")
    assert mlflow_server.LOGIN == (
        "kubectl -n raypath exec deploy/mlflow -- python -m raypath.deploy.kubernetes.mlflow_server link "
        "http://localhost:5000"
    )
