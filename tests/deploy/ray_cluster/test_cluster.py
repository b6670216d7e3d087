"""Package, placement of steps, preflight checks, and protection of the token."""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raypath.components import Params, Unavailable, UserError
from raypath.components.core.graph import Graph
from raypath.deploy.launchers import prepare
from raypath.deploy.ray_cluster.jobs_api import JobsApiClient, dashboard_url, token
from raypath.deploy.ray_cluster.launcher import RayParams, render
from raypath.deploy.ray_cluster.platform import choose
from raypath.deploy.ray_cluster.preflight import check_capacity, check_node
from raypath.deploy.remote import package as upload
from raypath.deploy.remote.package import TIMES, pack, restore_times
from raypath.deploy.store.store import Store
from tests.local_http import answering

ROOT = Path(__file__).parents[3]


class Settings(Params):
    """Something with an address."""

    uri: str = "sample://reviews"
    """URI of the data."""


def _graph(uri: str = "sample://reviews") -> Graph:
    return Graph(workflow="w", params=Settings(uri=uri), nodes=(), result=None)  # type: ignore[arg-type]


def _git(*args: str) -> None:
    subprocess.run(["git", *args], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's repository: code, data that git ignores, a note that it does not know."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "flow.py").write_text("x = 1\n")
    (tmp_path / "small.csv").write_text("a,b\n")
    (tmp_path / ".gitignore").write_text("*.env\nlarge.csv\n")
    (tmp_path / "key.env").write_text("SECRET")
    (tmp_path / "large.csv").write_text("a,b\n1,2\n")
    _git("init", "-q")
    _git("add", "-A")
    (tmp_path / "note.py").write_text("y = 2\n")
    return tmp_path


def _names(data: bytes) -> set[str]:
    return set(zipfile.ZipFile(io.BytesIO(data)).namelist())


def test_only_what_git_tracks_is_sent_and_our_own_code(repository: Path) -> None:
    made = pack(repository, _graph())
    names = _names(made.data)
    theirs = {name for name in names if name.partition("/")[0] != "raypath"}
    assert theirs == {".gitignore", "own/flow.py", "small.csv", TIMES}
    assert {
        "raypath/deploy/ray_cluster/driver.py",
        "raypath/deploy/local/proxy/haproxy.sh",
        "raypath/deploy/local/proxy/event_relay.lua",
        "raypath/components/serving/api/pages/page.html",
    } <= names
    assert not any("__pycache__" in name for name in names)
    files = zipfile.ZipFile(io.BytesIO(made.data)).infolist()
    assert {(file.external_attr, file.date_time) for file in files} == {(0o644 << 16, (1980, 1, 1, 0, 0, 0))}
    assert made.warnings == ("not sent, since git does not track them: note.py",)
    assert pack(repository, _graph()) == made
    (repository / "own" / "flow.py").write_text("x = 3\n")
    assert pack(repository, _graph()).name != made.name


def test_a_home_is_never_sent(repository: Path) -> None:
    """Even where somebody has added it to git: it has keys."""
    (repository / ".raypath" / "access").mkdir(parents=True)
    (repository / ".raypath" / "access" / "local.key").write_text("hush")
    _git("add", "--force", ".raypath")
    assert not any(".raypath" in name for name in _names(pack(repository, _graph()).data))


@pytest.mark.parametrize("name", ["mlflow.py", "click.py", "ray/__init__.py", "opentelemetry.py", "types.py"])
def test_a_module_that_would_shadow_an_installed_one_on_the_cluster_is_rejected(repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).touch()
    _git("add", name)
    with pytest.raises(UserError, match=rf"{name} would be imported on the cluster in place of .* rename it"):
        pack(repository, _graph())


def test_modules_that_shadow_nothing_are_sent(repository: Path) -> None:
    names = {"deploy.py", "components/__init__.py", "workflows/__init__.py", "tests/__init__.py", "own/mlflow.py"}
    for name in names:
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).touch()
    _git("add", *names)
    assert names <= _names(pack(repository, _graph()).data)


def test_raypaths_own_checkout_is_sent_once() -> None:
    names = _names(pack(ROOT, _graph()).data)
    assert {"raypath/components/read.py", "raypath/deploy/ray_cluster/driver.py", "README.md"} <= names
    assert not {"components", "workflows", "deploy", "k8s", "src"} & {name.partition("/")[0] for name in names}


def test_uploaded_data_keeps_its_change_time(repository: Path, tmp_path: Path) -> None:
    os.utime("small.csv", ns=(1, 1_600_000_000_000_000_000))
    there = tmp_path / "there"
    zipfile.ZipFile(io.BytesIO(pack(repository, _graph()).data)).extractall(there)
    assert (there / "small.csv").stat().st_mtime_ns != 1_600_000_000_000_000_000
    restore_times(there)
    assert (there / "small.csv").stat().st_mtime_ns == 1_600_000_000_000_000_000
    restore_times(repository)  # where nothing was uploaded there is nothing to do


def test_what_the_run_needs_and_git_does_not_track(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"large.csv would not be on the cluster: git does not track it; git add"):
        pack(repository, _graph("large.csv"))
    warned = pack(repository, _graph(str(repository / "large.csv"))).warnings
    assert warned[0].endswith("large.csv is not sent; the run needs it on the cluster's nodes under the same path")
    assert len(pack(repository, _graph("small.csv")).warnings) == 1
    monkeypatch.setattr(upload, "MAX_BYTES", 3)
    with pytest.raises(UserError, match=r"git tracks \d+ MiB here .*; keep data out of git"):
        pack(repository, _graph())


def test_a_workflow_that_git_does_not_track(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository))
    __import__("note")
    try:
        with pytest.raises(UserError, match=r"note\.py would not be on the cluster: git does not track it"):
            pack(repository, _graph())
    finally:
        del sys.modules["note"]


def test_outside_of_a_repository_our_own_workflows_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("a\n")
    assert {name.partition("/")[0] for name in _names(pack(tmp_path, _graph()).data)} == {"raypath", TIMES}
    with pytest.raises(UserError, match=r"data.csv would not be on the cluster: .* is in no git repository"):
        pack(tmp_path, _graph("data.csv"))


def test_a_rendered_job_holds_no_secret(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.here:9000")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hush")
    changes = {"finetune.epochs": 2, "tune.lr": [0.1, 0.2], "ray.store": "s3://bucket/x", "ray.mlflow": "http://m:5000"}
    launcher, job, params = prepare("ray", "text_classification", changes, repository, ("tune",))
    body = json.loads(launcher.render(job, params))
    assert "hush" not in json.dumps(body)
    assert body["entrypoint"].startswith(
        "python -m raypath.deploy.ray_cluster.driver text_classification -s finetune.epochs=2 -s"
    )
    assert body["entrypoint"].endswith("--fresh tune --run RUN")
    known = body["runtime_env"]["env_vars"]
    assert (known["RAYPATH_STORE"], known["RAYPATH_HOME"]) == ("s3://bucket/x", "~/.raypath")
    assert (known["MLFLOW_TRACKING_URI"], known["AWS_ENDPOINT_URL"]) == ("http://m:5000", "http://s3.here:9000")
    shared = json.loads(render(job, RayParams(store="/mnt/team")))["runtime_env"]["env_vars"]
    assert shared["RAYPATH_HOME"] == "/mnt/team"


NODES: list[dict[str, Any]] = [
    {"NodeID": "h", "Resources": {"CPU": 8.0, "node:__internal_head__": 1.0}},
    {"NodeID": "a", "Resources": {"CPU": 4.0}},
    {"NodeID": "b", "Resources": {"CPU": 4.0}},
]


def test_steps_go_to_idle_nodes_that_are_not_the_head_and_to_gpus_first() -> None:
    assert choose(NODES, [], head=False)["NodeID"] == "a"
    assert choose(NODES, ["a"], head=False)["NodeID"] == "b"
    assert choose(NODES, ["a", "b"], head=False)["NodeID"] == "h"
    gpu = {"NodeID": "g", "Resources": {"CPU": 2.0, "GPU": 1.0}}
    assert choose([*NODES, gpu], ["g"], head=False)["NodeID"] == "g"
    assert choose([*NODES, gpu], [], head=True)["NodeID"] == "h"


def test_a_node_tells_what_it_does_not_reach(tmp_path: Path) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    Store(home, shared).open()
    (home / "attempts" / "m").touch()
    (problem, _), sees_home = check_node(str(home), str(shared), "m", "")[0] or ("", ""), True
    assert problem == f"{shared} is not the same folder as on the driver's node"
    (shared / "attempts" / "m").touch()
    assert check_node(str(home), str(shared), "m", "") == (None, sees_home)
    found, _ = check_node(str(home), str(shared), "m", "http://127.0.0.1:9")
    assert found is not None
    assert found[0] == "MLflow at http://127.0.0.1:9 does not answer"
    assert check_node(str(tmp_path / "other"), "", "m", "")[1] is False


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A server that sends everybody on to another address, and the tokens that it was shown there."""
    shown: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/other"):
                shown.append(self.headers.get("Authorization", ""))
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/other")  # type: ignore[index]
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with answering(Handler) as url:
        yield url, shown


def test_the_token_goes_to_the_address_alone(elsewhere: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, shown = elsewhere
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with pytest.raises(Exception, match="answered 302"):
        JobsApiClient(address).version()
    assert shown == []


def test_addresses_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token() == ""
    (tmp_path / "t").write_text("abc\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "t"))
    assert token() == "abc"
    assert dashboard_url("head:8265/") == "http://head:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://ray.team")
    assert dashboard_url("") == "https://ray.team"
    with pytest.raises(UserError, match="not HTTP"):
        dashboard_url("ray://head:10001")
    with pytest.raises(Unavailable, match="no Ray cluster answers"):
        JobsApiClient("http://127.0.0.1:9").version()


@pytest.mark.parametrize(
    ("changes", "nodes", "says"),
    [
        ({"finetune.workers": 2}, [{"CPU": 8}, {"GPU": 1}, {"GPU": 1}], ""),
        (
            {"finetune.workers": 3},
            [{"CPU": 8}, {"GPU": 1}, {"GPU": 1}],
            "workers=3: the cluster has capacity for 2 GPUs; wanted 3; lower the setting, or add nodes",
        ),
        (
            {"finetune.workers": 3},
            [{"CPU": 2}],
            "workers=3: the cluster has capacity for 2 CPUs; wanted 3; lower the setting, or add nodes",
        ),
        ({"serve.gpus": 0.5, "serve.replicas": 2}, [{"CPU": 8}, {"GPU": 1}], ""),
        (
            {"serve.gpus": 1, "serve.replicas": 2},
            [{"CPU": 8}, {"GPU": 1}],
            "serve.gpus=1: the cluster has capacity for 1 such replicas; wanted 2; lower the setting, or add nodes",
        ),
        (
            {"serve.gpus": 1},
            [{"CPU": 8}],
            "serve.gpus=1: the cluster has capacity for 0 such replicas; wanted 1; lower the setting, or add nodes",
        ),
        (
            {"serve.cpus": 3},
            [{"CPU": 2}, {"CPU": 2}],
            "serve.cpus=3: the cluster has capacity for 0 such replicas; wanted 1; lower the setting, or add nodes",
        ),
        ({"serve.gpus": 1}, [], ""),
    ],
)
def test_what_the_nodes_have_no_room_for_is_told_first(
    changes: dict[str, Any], nodes: list[dict[str, float]], says: str, tmp_path: Path
) -> None:
    _, job, _ = prepare("ray", "text_classification", changes, tmp_path)
    if not says:
        return check_capacity(job.graph, nodes)
    with pytest.raises(UserError) as told:
        check_capacity(job.graph, nodes)
    assert str(told.value) == says
