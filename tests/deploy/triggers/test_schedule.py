"""Schedules: a crontab line, a CronJob, a RayCronJob; and what the CronJob runs, against a real HTTPS server."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from raypath.components import ParamsError, PlatformError, UserError
from raypath.deploy.kubernetes import start_rayjob
from raypath.deploy.launchers import prepare
from raypath.deploy.triggers import schedule
from tests.deploy.kubernetes.rayjobs import rayjobs
from tests.k8s.manifests import IMAGE, check_pod, documents, of, pods, validate


def _rendered(tmp_path: Path, on: str, cron: str = "0 3 * * 1", **changes: Any) -> str:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    image = {"kuberay.image": IMAGE} if on == "kuberay" else {}
    _, request, params = prepare(on, "text_classification", {**image, **given}, tmp_path)
    return schedule.render(request, cron, on, params)


def test_a_crontab_line_has_what_cron_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_STORE", "/a folder")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    line = _rendered(tmp_path, "local")
    known = f"RAYPATH_HOME={tmp_path} RAYPATH_PRECISION=fp32 RAYPATH_STORE='/a folder'"
    assert f"&& {known} MLFLOW_TRACKING_URI=http://mlflow:5000 " in line
    assert "hidden" not in line


def test_a_crontab_line_is_one_that_a_shell_runs(tmp_path: Path) -> None:
    line = _rendered(tmp_path, "local", "*/15 0-6 * * mon,fri", read__text="5% of it")
    assert line.startswith("*/15 0-6 * * mon,fri cd ")
    assert line.count("\n") == 1
    command = line.split(" ", 5)[5].replace("\\%", "%")
    assert "\\%" in line, "a bare % would end the command"
    words = shlex.split(command)
    assert words[-4:-2] == ["read.text=5% of it", ">>"]
    # The same line with another command runs, from any folder.
    done = subprocess.run(["sh", "-c", command.replace(" run ", " check ")], cwd="/", check=False)
    assert done.returncode == 0
    assert "no errors" in (tmp_path / "schedule.log").read_text()


@pytest.mark.parametrize(
    "cron", ["0 3 * *", "60 3 * * 1", "0 3 * * 8", "0 3 * foo *", "*/0 * * * *", "1/ * * * *", "a b c d e"]
)
def test_what_is_no_time_is_told(cron: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="--cron"):
        _rendered(tmp_path, "local", cron)


def test_a_cronjob_and_the_suspended_job_it_copies(tmp_path: Path) -> None:
    text = _rendered(tmp_path, "kuberay", finetune__epochs="2")
    found = documents(text)
    job, clock = of(found, "RayJob"), of(found, "CronJob")
    assert job["spec"]["suspend"] is True
    assert "finetune.epochs=2" in job["spec"]["entrypoint"]
    [box] = next(pods(clock))["containers"]
    assert box["command"][-2:] == ["$(TEMPLATE)", "$(JOB)-ray"]
    assert box["env"][0] == {"name": "TEMPLATE", "value": job["metadata"]["name"]}
    assert box["image"] == IMAGE
    assert clock["spec"]["schedule"] == "0 3 * * 1"
    for document in found:
        for pod in pods(document):
            check_pod(pod)
    assert validate(text).endswith(" 0 failed")


def test_in_a_queue_the_template_stays_out_of_it(tmp_path: Path) -> None:
    job = of(documents(_rendered(tmp_path, "kuberay", kuberay__queue="training")), "RayJob")
    assert "labels" not in job["metadata"]
    copy = start_rayjob.copy_of(job, "now")
    assert copy["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert copy["spec"]["suspend"] is True


def test_a_raycronjob_where_kuberay_has_it(tmp_path: Path) -> None:
    text = _rendered(tmp_path, "kuberay", kuberay__raycronjob="true")
    assert yaml.safe_load(text)["kind"] == "RayCronJob"
    assert validate(text, "--gates", "RayCronJob").endswith("1 passed, 0 failed")


def test_names_leave_room_for_what_the_clock_adds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="33 characters; KubeRay allows 32"):
        _rendered(tmp_path, "kuberay", kuberay__name="n" * 33)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SimpleNamespace]:
    with rayjobs(tmp_path / "account") as cluster:
        yield cluster


def test_a_copy_is_started_once(cluster: SimpleNamespace, tmp_path: Path) -> None:
    template = of(documents(_rendered(tmp_path, "kuberay")), "RayJob")
    name = template["metadata"]["name"]
    cluster.objects[name] = {**template, "metadata": {**template["metadata"], "uid": "u", "resourceVersion": "7"}}
    told = start_rayjob.main(name, f"{name}-29", cluster.address, cluster.account)
    assert told == f"{name}-29 started, a copy of {name}"
    made = cluster.objects[f"{name}-29"]
    assert made["spec"] == {**template["spec"], "suspend": False}
    assert set(made["metadata"]) == {"name", "namespace", "labels"}
    assert validate(yaml.safe_dump(made)).endswith("1 passed, 0 failed")
    assert "was started before" in start_rayjob.main(name, f"{name}-29", cluster.address, cluster.account)


def test_one_copy_at_a_time_and_old_ones_go(cluster: SimpleNamespace, tmp_path: Path) -> None:
    template = of(documents(_rendered(tmp_path, "kuberay")), "RayJob")
    name = template["metadata"]["name"]
    cluster.objects[name] = template

    def start(number: int) -> str:
        told = start_rayjob.main(name, f"{name}-{number}", cluster.address, cluster.account)
        for made in (each for key, each in cluster.objects.items() if key == f"{name}-{number}"):
            made["metadata"]["creationTimestamp"] = f"2026-01-0{number}T00:00:00Z"
        return told

    for number in range(1, 6):
        assert start(number) == f"{name}-{number} started, a copy of {name}"
        assert "not started" in start(9)
        assert "was started before" in start(number)
        cluster.objects[f"{name}-{number}"]["status"] = {"jobDeploymentStatus": "Failed" if number % 2 else "Complete"}
    assert set(cluster.objects) == {name, *(f"{name}-{number}" for number in (2, 3, 4, 5))}


def test_what_the_api_says_is_told(cluster: SimpleNamespace) -> None:
    with pytest.raises(PlatformError, match="RayJob nothing: not found"):
        start_rayjob.main("nothing", "x", cluster.address, cluster.account)
    with pytest.raises(UserError, match="48 characters"):
        start_rayjob.main("nothing", "x" * 48, cluster.address, cluster.account)
    (cluster.account / "token").write_text("another")
    with pytest.raises(PlatformError, match="RayJob nothing: pipeline-runner cannot"):
        start_rayjob.main("nothing", "x", cluster.address, cluster.account)
