"""The attack on MLflow: a location of one's own, a link in it, and the files of the server's owner behind that link."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.tracking.server.codes import Signer
from raypath.components.tracking.server.login import cookie_name
from raypath.deploy.local import services as local
from tests.mlflow_login import TOKEN

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture(scope="module")
def mlflow(mlflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The MLflow of a home, and a folder of an attacker with a link to that home."""
    server = local.up(mlflow_home, ray=False).mlflow
    assert server is not None
    trap = tmp_path_factory.mktemp("trap")
    (trap / "link").symlink_to(mlflow_home)
    yield SimpleNamespace(home=mlflow_home, address=server.address.removeprefix("http://"), trap=trap)
    local.down(mlflow_home)


def ask(mlflow: SimpleNamespace, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """A request with the token, unless the headers say otherwise; without one for authorization=""."""
    connection = http.client.HTTPConnection(mlflow.address, timeout=20)
    given = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"} | headers
    text = body if isinstance(body, str) or body is None else json.dumps(body)
    connection.request(method, path, text, {name.replace("_", "-"): value for name, value in given.items() if value})
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def test_the_attack_without_a_login(mlflow: SimpleNamespace) -> None:
    """On the code of before: an experiment at file:///TRAP, a run in it, and ray.token through the trap's link."""
    body = {"name": "attack", "artifact_location": f"file://{mlflow.trap}"}
    assert ask(mlflow, "POST", f"{API}/experiments/create", body, authorization="")[0] == 401
    assert ask(mlflow, "POST", f"{API}/experiments/search", {"max_results": 1}, authorization="")[0] == 401
    assert ask(mlflow, "PUT", f"{FILES}/x", "planted", authorization="")[0] == 401
    for path in ("/get-artifact?run_id=1&path=x", "/graphql", "/ajax-api/2.0/mlflow/experiments/search", "/version"):
        assert ask(mlflow, "GET", path, authorization="")[0] == 401, path
    assert ask(mlflow, "GET", "/health", authorization="")[0] == 200


def test_a_connection_cannot_claim_to_be_another_one(mlflow: SimpleNamespace) -> None:
    # The proxy headers of uvicorn would replace the address that the owner of a cookie is found by.
    cookie = f"{cookie_name(TOKEN)}={Signer(TOKEN, 'cookie').sign(60)}"
    login = {"authorization": "", "cookie": cookie, "x_forwarded_for": "203.0.113.9"}
    search = "/ajax-api/2.0/mlflow/experiments/search?max_results=1"
    assert ask(mlflow, "GET", search, **login)[0] == 200


@pytest.mark.parametrize(
    "where",
    ["file://{trap}", "{trap}", "file:{trap}/link", "s3://bucket/x", "http://127.0.0.1:1/x", "ftp://h/x", "link",
     "mlflow-artifacts://evil:80/x", "mlflow-artifacts:/../x", "mlflow-artifacts:/a/%2e%2e/%2e%2e/x",
     "MLFLOW-ARTIFACTS:/x",     "runs:/1/x", "mlflow-artifacts:///etc", " mlflow-artifacts:/x", "dbfs:/x"],
)  # fmt: skip
def test_no_experiment_has_a_location_of_its_own(mlflow: SimpleNamespace, where: str) -> None:
    body = {"name": f"at {where}", "artifact_location": where.format(trap=mlflow.trap)}
    for prefix in (API, "/ajax-api/2.0/mlflow"):
        status, text = ask(mlflow, "POST", f"{prefix}/experiments/create", body)
        assert status == 400, text
    assert list(mlflow.trap.iterdir()) == [mlflow.trap / "link"]


@pytest.mark.parametrize(
    "source", ["file://{trap}", "{trap}/link", "s3://bucket/x", "http://h/x", "mlflow-artifacts:/../x", "models:/../x"]
)
def test_no_version_has_a_source_elsewhere(mlflow: SimpleNamespace, source: str) -> None:
    ask(mlflow, "POST", f"{API}/registered-models/create", {"name": "m"})
    body = {"name": "m", "source": source.format(trap=mlflow.trap)}
    status, text = ask(mlflow, "POST", f"{API}/model-versions/create", body)
    assert status in (400, 404), text
    assert b"model_versions" not in ask(mlflow, "GET", f"{API}/model-versions/search?filter=name%3D%27m%27")[1]


def _run(mlflow: SimpleNamespace, experiment: str = "0") -> str:
    made = ask(mlflow, "POST", f"{API}/runs/create", {"experiment_id": experiment, "start_time": 1})
    return str(json.loads(made[1])["run"]["info"]["run_id"])


def _planted(mlflow: SimpleNamespace, sql: str, *values: str) -> None:
    """Write into the database what the code of before has let an attacker write."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(mlflow.home / "mlflow" / "mlflow.db", timeout=20)) as database, database:
        database.execute(sql, values)


def test_a_location_that_was_planted_before_is_not_opened(mlflow: SimpleNamespace) -> None:
    run = _run(mlflow)
    _planted(mlflow, "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", f"file://{mlflow.trap}/link", run)
    for path in (f"/get-artifact?run_id={run}&path=mlflow.token", f"{API}/artifacts/list?run_id={run}"):
        status, text = ask(mlflow, "GET", path)
        assert status == 400, text
        assert TOKEN.encode() not in text
    upload = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=planted"
    assert ask(mlflow, "POST", upload, "planted", content_type="text/plain")[0] == 400
    assert not (mlflow.home / "planted").exists()
    # The owner can still delete it.
    assert ask(mlflow, "POST", f"{API}/runs/delete", {"run_id": run})[0] == 200


def test_a_trace_that_names_a_location_is_not_opened(mlflow: SimpleNamespace) -> None:
    tags = [{"key": "mlflow.artifactLocation", "value": f"file://{mlflow.trap}/link"}]
    body = {"experiment_id": "0", "timestamp_ms": 1, "execution_time_ms": 1, "status": "OK", "tags": tags}
    status, text = ask(mlflow, "POST", f"{API}/traces", body)
    trace = json.loads(text).get("trace_info", {}).get("request_id", "tr-1") if status == 200 else "tr-1"
    status, text = ask(mlflow, "GET", f"/ajax-api/2.0/mlflow/get-trace-artifact?request_id={trace}&path=mlflow.token")
    assert status >= 400, text
    assert TOKEN.encode() not in text


def test_links_among_the_artifacts_are_not_followed(mlflow: SimpleNamespace) -> None:
    files = mlflow.home / "mlflow" / "artifacts"
    assert ask(mlflow, "PUT", f"{FILES}/own/a.txt", "text")[0] == 200
    (files / "own" / "link").symlink_to(mlflow.home)
    (files / "own" / "file").symlink_to(mlflow.home / "mlflow.token")
    (files / "own" / "inner").symlink_to(files / "own")
    try:
        for path in ("own/link/mlflow.token", "own/file", "own/inner/a.txt"):
            status, text = ask(mlflow, "GET", f"{FILES}/{path}")
            assert status == 400, text
            assert ask(mlflow, "DELETE", f"{FILES}/{path}")[0] == 400
        assert ask(mlflow, "PUT", f"{FILES}/own/link/planted", "x")[0] == 400
        assert ask(mlflow, "PUT", f"{FILES}/own/link/mlflow/planted", "x")[0] == 400
        listed = json.loads(ask(mlflow, "GET", f"{FILES}?path=own")[1])["files"]
        assert [each["path"] for each in listed] == ["a.txt"]
        assert ask(mlflow, "GET", f"{FILES}?path=own/link")[0] == 400
        # An upload replaces a link, and does not write through it.
        assert ask(mlflow, "PUT", f"{FILES}/own/file", "mine")[0] in (200, 400)
        assert (mlflow.home / "mlflow.token").read_text() == TOKEN
        assert not (mlflow.home / "planted").exists()
    finally:
        shutil.rmtree(files / "own")


@pytest.mark.parametrize(
    "path",
    ["../mlflow.token", "..%2fmlflow.token", "%2e%2e/mlflow.token", "%252e%252e%252fmlflow.token",
     "a/../../mlflow.token", "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd"],
)  # fmt: skip
def test_paths_do_not_leave_the_artifacts(mlflow: SimpleNamespace, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        status, text = ask(mlflow, method, f"{FILES}/{path}", "x" if method == "PUT" else None)
        assert status >= 300 or method == "PUT", (method, text)
        assert TOKEN.encode() not in text
        assert b"root:" not in text
    assert (mlflow.home / "mlflow.token").read_text() == TOKEN
    assert {entry.name for entry in mlflow.home.iterdir()} >= {"mlflow", "mlflow.token"}
    assert os.path.getsize("/etc/passwd") > 1


def test_what_raypath_and_people_do_works(mlflow: SimpleNamespace) -> None:
    made = ask(mlflow, "POST", f"{API}/experiments/create", {"name": "good"})
    assert made[0] == 200, made
    experiment = json.loads(made[1])["experiment_id"]
    run = _run(mlflow, experiment)
    uri = json.loads(ask(mlflow, "GET", f"{API}/runs/get?run_id={run}")[1])["run"]["info"]["artifact_uri"]
    path = uri.removeprefix("mlflow-artifacts:/")
    assert ask(mlflow, "PUT", f"{FILES}/{path}/plots/a.txt", "text")[0] == 200
    assert ask(mlflow, "GET", f"/get-artifact?run_id={run}&path=plots/a.txt") == (200, b"text")
    assert b"plots/a.txt" in ask(mlflow, "GET", f"{API}/artifacts/list?run_id={run}&path=plots")[1]
    assert (
        ask(mlflow, "POST", f"{API}/experiments/update", {"experiment_id": experiment, "new_name": "better"})[0] == 200
    )
    body = {"name": "m", "source": f"{uri}/plots", "run_id": run}
    assert ask(mlflow, "POST", f"{API}/model-versions/create", body)[0] == 200
    assert b"<html" in ask(mlflow, "GET", "/")[1].lower()
    assert ask(mlflow, "GET", "/graphql", host="evil.example.com")[0] == 403
