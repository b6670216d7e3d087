"""What a pipeline is checked for before kfp is needed, each message in full; and a step's RayJob, answer by answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components import PlatformError, Unavailable, UserError
from raypath.deploy.kubeflow import api, launcher, pipeline, rayjob_step
from raypath.deploy.kubeflow.launcher import rayjob_settings, size_of
from raypath.deploy.launchers import RunRequest, prepare
from tests.k8s.manifests import IMAGE

PLACE = {"kubeflow.image": IMAGE, "kubeflow.store": "s3://bucket/team", "kubeflow.endpoint": "http://reviews:8000"}


def _planned(tmp_path: Path, fresh: tuple[str, ...] = (), **changes: Any) -> tuple[RunRequest, Any]:
    settings = PLACE | {key.replace("__", "."): value for key, value in changes.items()}
    _, request, params = prepare("kubeflow", "text_classification", settings, tmp_path, fresh)
    return request, params


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"kubeflow__image": ""},
            "no image is set; -s kubeflow.image=REPOSITORY@sha256:DIGEST, built from deploy/image/Dockerfile",
        ),
        (
            {"kubeflow__image": "raypath:1.0"},
            "image raypath:1.0 is not pinned by digest; use REPOSITORY@sha256:DIGEST, or kubeflow.loaded=true for an "
            "image loaded onto the nodes by hand",
        ),
        (
            {"kubeflow__store": ""},
            "no store is set, so steps would not find each other's artifacts; -s kubeflow.store=s3://...",
        ),
        (
            {"kubeflow__store": "gs://bucket"},
            "kubeflow.store=gs://bucket is not shared between pods; use s3://BUCKET/PREFIX or a mounted path",
        ),
        (
            {"kubeflow__store": "/store"},
            "kubeflow.store=/store is not on a mounted volume; set kubeflow.claim to the claim that is mounted there, "
            "or use s3://BUCKET/PREFIX",
        ),
        (
            {"kubeflow__endpoint": ""},
            "an endpoint of step serve would end with its container; set kubeflow.endpoint to the URL of the "
            "RayService of `raypath render --on kuberay`",
        ),
        (
            {"kubeflow__steps.finetun.gpus": "1"},
            "kubeflow.steps names finetun, which is not a step; the steps are STEPS",
        ),
        ({"kubeflow__ray": "tuna"}, "kubeflow.ray names tuna, which is not a step; the steps are STEPS"),
        (
            {"kubeflow__ray": "finetune", "finetune__workers": "9"},
            "9 training workers, but the nodes have 2 CPUs; raise kuberay.workers, or kuberay.cpus",
        ),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    request, params = _planned(tmp_path, **changes)
    with pytest.raises(UserError) as told:
        launcher.check(request, params)
    names = ", ".join(node.name for node in request.graph.nodes)
    assert str(told.value) == says.replace("STEPS", names)


def test_what_fits(tmp_path: Path) -> None:
    launcher.check(*_planned(tmp_path))
    launcher.check(*_planned(tmp_path, kubeflow__store="/store", kubeflow__claim="raypath-store"))
    with pytest.raises(UserError, match=r"--fresh tun: no such step; did you mean tune\?"):
        launcher.check(*_planned(tmp_path, fresh=("tun",)))


def test_names_of_pipelines(tmp_path: Path) -> None:
    assert launcher.pipeline_name(*_planned(tmp_path)) == "text-classification"
    assert launcher.pipeline_name(*_planned(tmp_path, kubeflow__name="n" * 57)) == "n" * 57
    with pytest.raises(UserError) as told:
        launcher.pipeline_name(*_planned(tmp_path, kubeflow__name="n" * 58))
    assert str(told.value) == f"{'n' * 58} has 58 characters; Kubeflow allows 57; set kubeflow.name"
    request, params = _planned(tmp_path)
    with pytest.raises(UserError) as wrong:
        launcher.pipeline_name(request, params.model_copy(update={"name": "-a"}))
    what = "'-a' is not a valid Kubernetes name: use a-z, 0-9 and -, a letter first"
    assert str(wrong.value) == f"{what}; set kubeflow.name"


def test_sizes_of_steps(tmp_path: Path) -> None:
    request, params = _planned(tmp_path, kubeflow__gpus="2", kubeflow__cpus="2.5", kubeflow__steps__read__memory="4Gi")
    assert size_of(request, params, "read").model_dump() == {"cpus": 2.5, "memory": "4Gi", "gpus": 0}
    assert size_of(request, params, "finetune").model_dump() == {"cpus": 2.5, "memory": "8Gi", "gpus": 2}
    settings = rayjob_settings(request, params, "finetune")
    assert settings == {
        **{"image": IMAGE, "loaded": False, "namespace": "raypath", "workers": 1, "cpus": 3, "memory": "8Gi"},
        **{"gpus": 2, "head_cpus": 2, "store": "s3://bucket/team", "tracking": "http://mlflow.raypath:5000"},
        **{"deadline": 86_400.0, "endpoint": False},
    }


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "--on kubeflow needs the API's address; give --address http://localhost:8080, say"),
        ("ftp://a", "--address ftp://a is not an HTTP URL; give http://... or https://..."),
        ("a:1", "--address a:1 is not an HTTP URL; give http://... or https://..."),
        ("http://a.example", "$KUBEFLOW_TOKEN would be sent unencrypted; give an https:// address"),
    ],
)
def test_addresses(address: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEFLOW_TOKEN", "secret")
    monkeypatch.setattr(api, "kfp", lambda: None)
    with pytest.raises(UserError) as told:
        api.connect(address)
    assert str(told.value) == says


def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "kfp", lambda: None)
    with pytest.raises(UserError) as told:
        api.connect("http://127.0.0.1:9")
    assert str(told.value).startswith("no Kubeflow answers at http://127.0.0.1:9: [Errno 111]")
    assert told.value.fix == (
        "check --address; `kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80` forwards it"
    )


@pytest.mark.parametrize(
    ("state", "steps", "says"),
    [
        ("SUCCEEDED", {}, ""),
        ("SKIPPED", {}, ""),
        ("FAILED", {"read": "SUCCEEDED", "tune": "FAILED", "split": "FAILED"}, "p failed at tune, split"),
        ("CANCELED", {"read": "RUNNING"}, "p canceled"),
    ],
)
def test_the_end_of_a_run(state: str, steps: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not says:
        api._ended(state, "p", steps)
        assert capsys.readouterr().out == "p: done\n"
        return
    with pytest.raises(PlatformError) as told:
        api._ended(state, "p", steps)
    assert str(told.value) == f"{says}; see the step's log on Kubeflow's page; another run resumes from there"


def test_a_setting_that_is_no_parameter() -> None:
    for key in ("a.b__c", "a_.b", "a._b"):
        with pytest.raises(UserError) as told:
            pipeline.parameter(key)
        fix = "name it without __ and _ at its ends"
        assert str(told.value) == f"setting {key} cannot be a parameter of Kubeflow; {fix}"


Answers = list[tuple[str, tuple[int, dict[str, Any]] | Exception]]


class Kubernetes:
    """Answers calls in order, and checks which they are."""

    def __init__(self, answers: Answers) -> None:
        self.answers = list(answers)

    def call(self, method: str, url: str, account: Path, body: Any = None) -> tuple[int, dict[str, Any]]:
        wanted, answer = self.answers.pop(0)
        assert f"{method} {url.rpartition('/')[2]}" == wanted
        if isinstance(answer, Exception):
            raise answer
        return answer


def _status(deployment: str, job: str = "", message: str = "") -> dict[str, Any]:
    status = {"jobDeploymentStatus": deployment, "jobStatus": job, "message": message}
    return {"metadata": {"name": "j"}, "status": status}


CREATE, LOOK, DELETE = "POST rayjobs", "GET j", "DELETE j"
BUSY: Answers = [(CREATE, (409, {})), (LOOK, (200, _status("Failed"))), (DELETE, (200, {}))]


@pytest.mark.parametrize(
    ("answers", "says", "printed"),
    [
        ([(CREATE, (201, {}))], "", "RayJob j created\n"),
        ([(CREATE, (409, {})), (LOOK, (200, _status("Running")))], "", "RayJob j was created by an earlier attempt\n"),
        ([*BUSY, (CREATE, (200, {}))], "", "RayJob j created\n"),
        (
            [(CREATE, (403, {"message": "forbidden"}))],
            "not allowed to create RayJob j: forbidden; allow the service account of Kubeflow's pods to create, get "
            "and delete rayjobs there",
            "",
        ),
        ([(CREATE, (422, {}))], "RayJob j was rejected: no reason given; check the kubeflow.* settings", ""),
        (BUSY * 60, "RayJob j of an earlier attempt is not deleted; delete it by hand", ""),
    ],
)
def test_creating_a_rayjob(
    answers: Answers,
    says: str,
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = Kubernetes(answers)
    monkeypatch.setattr(rayjob_step, "call", cluster.call)
    wanted = {"metadata": {"name": "j"}}
    if says:
        with pytest.raises((UserError, PlatformError)) as told:
            rayjob_step._create("http://a/rayjobs", wanted, tmp_path, 0.0)
        assert str(told.value) == says
    else:
        rayjob_step._create("http://a/rayjobs", wanted, tmp_path, 0.0)
    assert (capsys.readouterr().out, cluster.answers) == (printed, [])


@pytest.mark.parametrize(
    ("answers", "seconds", "says", "printed"),
    [
        (
            [
                (LOOK, (200, {})),
                (LOOK, Unavailable("away", fix="")),
                *[(LOOK, (200, _status("Running", "RUNNING")))] * 2,
                (LOOK, (200, _status("Complete", "SUCCEEDED"))),
            ],
            9.0,
            "",
            ["RayJob j: Running RUNNING", "RayJob j: Complete SUCCEEDED"],
        ),
        ([(LOOK, (404, {}))], 9.0, "RayJob j was deleted; run the pipeline again", []),
        (
            [(LOOK, (200, _status("Failed", "FAILED", "first\nraypath: no column x")))],
            9.0,
            "RayJob j: no column x; kubectl logs -l job-name=j",
            ["RayJob j: Failed FAILED"],
        ),
        ([(DELETE, (200, {}))], 0.0, "RayJob j did not end within 0 s; raise kubeflow.deadline", []),
    ],
)
def test_waiting_for_a_rayjob(
    answers: Answers,
    seconds: float,
    says: str,
    printed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = Kubernetes(answers)
    monkeypatch.setattr(rayjob_step, "call", cluster.call)
    if says:
        with pytest.raises(PlatformError) as told:
            rayjob_step._wait("http://a/rayjobs", "j", seconds, tmp_path, 0.0)
        assert str(told.value) == says
    else:
        rayjob_step._wait("http://a/rayjobs", "j", seconds, tmp_path, 0.0)
    assert capsys.readouterr().out.splitlines() == printed
    assert cluster.answers == []
    monkeypatch.setattr(rayjob_step, "RECONNECT_TIMEOUT", -1.0)
    cluster.answers = [(LOOK, Unavailable("away", fix="try again"))]
    with pytest.raises(Unavailable, match="away; try again"):
        rayjob_step._wait("http://a/rayjobs", "j", 9.0, tmp_path, 0.0)
