"""Tokens of homes: each goes to its own server, credentials of the user go to all others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.core.errors import Unavailable
from raypath.components.tracking import login
from raypath.components.tracking.rest import get
from raypath.deploy.local import state
from raypath.deploy.local.platform import LocalPlatform
from raypath.deploy.local.processes import Process
from raypath.deploy.local.ray_connection import RayConnection


@pytest.fixture
def servers() -> Iterator[list[SimpleNamespace]]:
    """Two servers that record the logins of their clients; the first redirects /moved to the second."""
    made: list[SimpleNamespace] = []
    for _ in range(2):
        seen: list[tuple[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self, seen: list[tuple[str, str]] = seen) -> None:
                seen.append((self.path, self.headers.get("Authorization", "")))
                moved = "/get" in self.path and len(made[1].seen) == 0 and seen is made[0].seen
                self.send_response(307 if moved else 401)
                if moved:
                    self.send_header("Location", f"{made[1].uri}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        made.append(SimpleNamespace(server=server, uri=f"http://127.0.0.1:{server.server_port}", seen=seen))
    yield made
    for each in made:
        each.server.shutdown()
        each.server.server_close()


CLIENTS = """
import sys
from raypath.components.core.errors import Unavailable
from raypath.components.tracking.rest import get
from raypath.components.tracking import login
login.remember(sys.argv[1], "the-token")
login.install()
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
for uri in sys.argv[1:]:
    try:
        MlflowClient(uri).get_run("a")
    except MlflowException as error:
        assert "the-token" not in str(error)
"""


def test_a_token_goes_to_its_server_alone_and_not_after_a_redirect(servers: list[SimpleNamespace]) -> None:
    own = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "mine", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | own
    command = [sys.executable, "-c", CLIENTS, *(each.uri for each in servers)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, second = servers
    assert first.seen[0][1] == "Bearer the-token"
    assert [given for _, given in second.seen] == ["", "Basic bWU6bWluZQ=="], "redirected, then asked by the user"


def test_a_home_takes_the_place_of_credentials_for_another_server(tmp_path: Path) -> None:
    assert not any(name.startswith("MLFLOW_TRACKING_") for name in state.environment(tmp_path))
    state.mlflow_token(tmp_path).write_text("t" * 64)
    server = Process(address="http://127.0.0.1:1", log=tmp_path / "log")
    state.write(tmp_path, state.Services(mlflow=server))
    found = state.environment(tmp_path)
    assert (found["MLFLOW_TRACKING_URI"], found["MLFLOW_TRACKING_TOKEN"]) == ("http://127.0.0.1:1", "t" * 64)
    assert (found["MLFLOW_TRACKING_USERNAME"], found["MLFLOW_TRACKING_PASSWORD"]) == ("raypath", "t" * 64)


@pytest.mark.parametrize("name", ["URI", "TOKEN", "USERNAME"])
def test_a_notebook_keeps_the_server_that_its_user_has_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("URI", "TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{each}", raising=False)
    test_a_home_takes_the_place_of_credentials_for_another_server(tmp_path)
    connection = RayConnection()
    found = connection._environment(tmp_path)
    assert found["MLFLOW_TRACKING_TOKEN"] == "t" * 64
    for key, value in found.items():
        if key.startswith("MLFLOW_TRACKING_"):
            monkeypatch.setenv(key, value)
    assert connection._environment(tmp_path)["MLFLOW_TRACKING_TOKEN"] == "t" * 64, (
        "what was set for a home is no user's"
    )
    monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "https://mlflow.example.com")
    assert not any(key.startswith("MLFLOW_TRACKING_") for key in connection._environment(tmp_path))


def test_a_server_that_rejects_the_login_is_found(
    servers: list[SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    assert login.is_rejected(servers[0].uri)
    assert not login.is_rejected("http://127.0.0.1:9")


def test_requests_without_mlflows_client_log_in_too(
    servers: list[SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "_tokens", {})
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "mine")
    login.remember(servers[0].uri, "the-token")
    for each in servers:
        with pytest.raises(Unavailable, match="returned status 401"):
            get(each.uri, "registered-models/alias", name="m")
    assert [each.seen[-1][1] for each in servers] == ["Bearer the-token", "Basic bWU6bWluZQ=="]
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "mine")
    assert [login.headers(each.uri) for each in servers] == [
        {"Authorization": "Bearer the-token"},
        {"Authorization": "Bearer mine"},
    ]


def test_a_platform_that_has_started_nothing_knows_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_tokens", {})
    assert LocalPlatform(tmp_path).mlflow() == ""
    test_a_home_takes_the_place_of_credentials_for_another_server(tmp_path)
    assert login.token_for(LocalPlatform(tmp_path).mlflow()) == "t" * 64
