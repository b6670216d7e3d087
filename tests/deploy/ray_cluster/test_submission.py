"""What a run on a Ray cluster is checked for and submitted with, and what its driver checks and ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypath.components import UserError
from raypath.components.core.errors import StepFailed
from raypath.deploy.execution.run_history import Run
from raypath.deploy.launchers import RunRequest, attach, prepare
from raypath.deploy.local.state import ALWAYS
from raypath.deploy.ray_cluster import driver, launcher, preflight
from raypath.deploy.ray_cluster.jobs_api import JobsApiClient
from raypath.deploy.ray_cluster.launcher import RayParams
from raypath.deploy.ray_cluster.platform import _unreachable
from raypath.deploy.ray_cluster.progress import _time
from raypath.deploy.remote.events import RunEnd
from raypath.deploy.store.store import Store

VARIABLES = ("RAYPATH_STORE", "MLFLOW_TRACKING_URI", "RAYPATH_PRECISION", "RAYPATH_SHARD_CACHE", *launcher._PASSED)
EVERYWHERE = {name: value for name, value in ALWAYS.items() if name != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_variables_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"RAYPATH_SUBMITTER": json.dumps(driver.versions())}
    found = launcher._environment("gcs://p", RayParams())
    assert found == {"working_dir": "gcs://p", "env_vars": EVERYWHERE | {"RAYPATH_HOME": "~/.raypath"} | same}
    given = RayParams(store="/mnt/a", mlflow="http://m:1", serve_url="http://s:2", same_versions=False)
    assert launcher._environment("gcs://p", given)["env_vars"] == EVERYWHERE | {
        **{"RAYPATH_HOME": "/mnt/a", "RAYPATH_STORE": "/mnt/a", "RAYPATH_SERVE_URL": "http://s:2"},
        **{"MLFLOW_TRACKING_URI": "http://m:1"},
    }
    monkeypatch.setenv("RAYPATH_STORE", "s3://bucket/x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m:3")
    for name in launcher._PASSED:
        monkeypatch.setenv(name, f"its {name}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("RAYPATH_PRECISION", "bf16")
    found = launcher._environment("gcs://p", RayParams(home="/h", same_versions=False))["env_vars"]
    passed = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
    assert found == EVERYWHERE | {name: f"its {name}" for name in passed} | {
        **{"RAYPATH_HOME": "/h", "RAYPATH_STORE": "s3://bucket/x", "MLFLOW_TRACKING_URI": "http://m:3"},
        **{"RAYPATH_PRECISION": "bf16"},
    }
    assert launcher._environment("gcs://p", RayParams())["env_vars"]["RAYPATH_HOME"] == "~/.raypath"


class _Cluster(JobsApiClient):
    """A cluster of a version, open or not, for which there is a token or not."""

    def __init__(self, address: str, version: str, is_open: bool, has_token: bool) -> None:
        self.address = address
        self._version, self._open, self._token = version, is_open, "x" if has_token else ""

    def version(self) -> str:
        return self._version

    def is_open(self) -> bool:
        return self._open


def test_the_cluster_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    here = driver.versions()["Ray"]
    with pytest.raises(UserError) as told:
        launcher._check_cluster(_Cluster("http://head:1", "1.0", False, True), RayParams())
    fix = "pip install ray==1.0 here, or set -s ray.same_versions=false"
    assert str(told.value) == f"the cluster runs Ray 1.0, and this machine {here}; {fix}"
    launcher._check_cluster(_Cluster("https://head:1", "1.0", False, True), RayParams(same_versions=False))
    launcher._check_cluster(_Cluster("http://localhost:1", here, False, True), RayParams())
    launcher._check_cluster(_Cluster("http://head:1", here, False, False), RayParams())
    assert capsys.readouterr().err == ""
    launcher._check_cluster(_Cluster("http://head:1", here, True, True), RayParams())
    assert capsys.readouterr().err.splitlines() == [
        "warning: http://head:1 accepts jobs from anyone; start Ray with RAY_AUTH_MODE=token",
        "warning: the token is sent to head unencrypted; use https or a tunnel",
    ]


def test_a_workflow_that_registers_needs_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, request, _ = prepare("ray", "text_classification", {}, tmp_path)
    with pytest.raises(UserError) as told:
        launcher._check_mlflow(request, RayParams())
    fix = "set -s ray.mlflow=http://HOST:PORT as the cluster's nodes reach it"
    assert str(told.value) == f"step register needs an MLflow server, and none is set; {fix}"
    launcher._check_mlflow(request, RayParams(mlflow="http://m:1"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m:1")
    launcher._check_mlflow(request, RayParams())
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    _, request, _ = prepare("ray", "batch_prediction", {"predict.model": "models:/m/1"}, tmp_path)
    launcher._check_mlflow(request, RayParams())


def test_a_command_repeats_what_was_asked_for(tmp_path: Path) -> None:
    given = {"a": "x y", "b": 2, "c": [0.5, "ü"], "d": True, "e": None}
    request = RunRequest("flow", None, tmp_path, given, ("read", "tune"))  # type: ignore[arg-type]
    words = "-s 'a=x y' -s b=2 -s 'c=[0.5, \"ü\"]' -s d=true -s e=null --fresh read --fresh tune"
    assert request.driver_command("r-1") == f"python -m raypath.deploy.ray_cluster.driver flow {words} --run r-1"
    assert RunRequest("flow", None, tmp_path).driver_command() == "python -m raypath.deploy.ray_cluster.driver flow"  # type: ignore[arg-type]


def test_a_run_that_was_not_submitted_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    Run(id="r-1", workflow="w", settings_digest="d", params={}, started=0.0, steps=[]).save(tmp_path)
    for name in ("last", "r-1", "other"):
        with pytest.raises(UserError) as told:
            attach(tmp_path, name)
        assert str(told.value) == f"no run {name} on a cluster; see `raypath runs`"


def test_the_driver_checks_versions() -> None:
    have = driver.versions()
    driver.check_versions({})
    driver.check_versions(have)
    for name in have:
        with pytest.raises(UserError) as told:
            driver.check_versions({**have, name: "1.0"})
        what = f"the cluster runs {name} {have[name]}, and this machine 1.0"
        assert str(told.value) == f"{what}; install {name} {have[name]} here, or set -s ray.same_versions=false"
    assert sorted(have) == ["Python", "Ray"]


@pytest.mark.parametrize(
    ("raised", "status", "kind", "what"),
    [
        (None, 0, "Dataset", ""),
        (KeyboardInterrupt(), 130, "", ""),
        (UserError("no column x", fix="name it"), 2, "UserError", "no column x"),
        (ZeroDivisionError("division"), 1, "StepFailed", "unexpected ZeroDivisionError: division"),
    ],
)
def test_a_driver_reports_its_end(
    raised: BaseException | None,
    status: int,
    kind: str,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(args: Any, home: Path, events: Any) -> RunEnd:
        assert (args.workflow, args.run, home) == ("flow", "r-1", tmp_path)
        if raised is not None:
            raise raised
        return RunEnd(result={"rows": 3}, kind="Dataset", seconds=2.0)

    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path))
    monkeypatch.setattr(driver, "_run", run)
    monkeypatch.setattr(driver, "configure_process", lambda **_: None)
    assert driver.main(["flow", "--run", "r-1"]) == status
    [(name, end)] = json.loads(capsys.readouterr().out.removeprefix("@raypath ")).items()
    assert (name, end["kind"], end["what"]) == ("end", kind, what)
    assert (end["result"] is None) is (kind != "Dataset")
    assert ("Traceback" in end["trace"]) is bool(what)
    if raised is not None and kind == StepFailed.__name__:
        assert end["fix"] == "run again with --debug"


def test_what_is_wrong_on_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    Store(tmp_path, shared).open()
    fix = "set -s ray.store=s3://BUCKET/FOLDER, or a folder that all nodes mount"
    assert preflight._check_store(str(tmp_path), str(shared), "m") == (
        f"{shared} is not the same folder as on the driver's node",
        fix,
    )
    (shared / "attempts" / "m").touch()
    assert preflight._check_store(str(tmp_path), str(shared), "m") is None
    monkeypatch.setattr("os.access", lambda *_: False)
    problem = (f"{shared} cannot be written", "let Ray's user write it")
    assert preflight._check_store(str(tmp_path), str(shared), "m") == problem
    assert preflight._check_mlflow("") is None
    assert preflight._check_mlflow("http://127.0.0.1:9") == (
        "MLflow at http://127.0.0.1:9 does not answer",
        "set -s ray.mlflow=http://HOST:PORT as the nodes reach it",
    )


def test_a_login_that_mlflow_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components.tracking import login, uploader

    monkeypatch.setattr(uploader, "reachable", lambda url, timeout: timeout == 5.0)
    for rejected in (True, False):
        monkeypatch.setattr(login, "is_rejected", lambda _, rejected=rejected: rejected)
        problem = ("MLflow at http://m asks for a login", "set MLFLOW_TRACKING_TOKEN where Ray is started on the nodes")
        assert preflight._check_mlflow("http://m") == (problem if rejected else None)


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ({"10.0.0.1": (("no bucket", "make it"), True), "10.0.0.2": (None, True)}, "node 10.0.0.1: no bucket; make it"),
        (
            dict.fromkeys(["10.0.0.1", "10.0.0.2", "10.0.0.3"], (("no bucket", "make it"), True)),
            "node 10.0.0.1 (and 2 more): no bucket; make it",
        ),
        ({"10.0.0.1": (None, True), "10.0.0.2": (None, False)}, False),
        ({"10.0.0.1": (None, True), "10.0.0.2": (None, True)}, True),
    ],
)
def test_nodes_are_checked(results: dict[str, Any], says: str | bool, tmp_path: Path, monkeypatch: Any) -> None:
    store = Store(tmp_path / "home", tmp_path / "shared").open()
    seen: list[Path] = []

    def run(nodes: Any, arguments: tuple[str, ...]) -> dict[str, Any]:
        home, address, name, mlflow = arguments
        assert (home, address, mlflow) == (str(store.home), store.address, "http://m")
        seen.extend(folder / "attempts" / name for folder in (store.home, store.root))
        assert all(marker.exists() for marker in seen)
        return results

    monkeypatch.setattr(preflight, "_run_on_nodes", run)
    if isinstance(says, bool):
        assert preflight.check_nodes([], store, "http://m") is says
    else:
        with pytest.raises(UserError) as told:
            preflight.check_nodes([], store, "http://m")
        assert str(told.value) == says
    assert not any(marker.exists() for marker in seen)


def test_lost_nodes_and_times_of_progress() -> None:
    lost = _unreachable("n1")
    assert (lost.error, lost.what, lost.fix) == ("Unavailable", "node n1 was lost", "run the same command again")
    assert [_time(line) for line in ('{"time": 3.5}', "{}", "x", "")] == [3.5, 0.0, 0.0, 0.0]
