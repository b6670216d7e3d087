"""Another user listens at the address of a server that has ended: the secrets of the home are not sent there."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from raypath.components.core.artifacts import Endpoint
from raypath.components.core.errors import Unavailable, UserError
from raypath.components.registry.client import list_models
from raypath.components.serving.control import client as control
from raypath.components.tracking import login
from raypath.components.tracking.rest import get
from raypath.components.tracking.uploader import reachable
from raypath.deploy.api.run_results import Run
from raypath.deploy.local import state
from raypath.deploy.local.processes import Process
from raypath.deploy.local.ray_connection import RayConnection
from raypath.deploy.ray_cluster.jobs_api import JobsApiClient

NOBODY = 65_534
TOKEN = "secret-of-the-home"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/net/tcp").exists(), reason="makes sockets of others"
)


class Listener:
    """A server on the loopback interface that keeps what it is sent."""

    def __init__(self, user: int) -> None:
        os.seteuid(user)
        try:
            self.socket = socket.create_server(("127.0.0.1", 0))
        finally:
            os.seteuid(0)
        self.received = b""
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self.socket.accept()
            except OSError:
                return
            with line:
                self.received += line.recv(65_536)
                line.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setattr(login, "_tokens", {})
    made = Listener(NOBODY)
    yield made
    made.socket.close()


def test_a_remembered_token(foreign: Listener) -> None:
    login.remember(foreign.url, TOKEN)
    with pytest.raises(Unavailable, match="MLflow does not respond"):
        get(foreign.url, "model-versions/get", name="m", version="1")
    with pytest.raises(Unavailable, match="MLflow does not respond"):
        list_models(foreign.url)
    assert not reachable(foreign.url)
    assert foreign.received == b""


def test_the_token_in_the_environment_of_a_worker(foreign: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in login.variables(TOKEN).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unavailable, match="MLflow does not respond"):
        get(foreign.url, "model-versions/get", name="m", version="1")
    assert not reachable(foreign.url)
    assert foreign.received == b""


def test_a_server_of_others_that_the_user_has_chosen(foreign: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "theirs")
    assert get(foreign.url, "model-versions/get", name="m", version="1") == {}
    assert b"Bearer theirs" in foreign.received


def test_a_server_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_tokens", {})
    own = Listener(0)
    login.remember(own.url, TOKEN)
    assert get(own.url, "model-versions/get", name="m", version="1") == {}
    assert TOKEN.encode() in own.received
    own.socket.close()


def test_the_key_of_a_home(foreign: Listener, tmp_path: Path) -> None:
    """A smoke test, and the client of a run, when the endpoint has ended."""
    assert control.request_json(f"{foreign.url}/predict", b'{"text": "a"}', 5.0, TOKEN) is None
    (tmp_path / "access").mkdir()
    (tmp_path / "access" / "local.key").write_text(TOKEN, encoding="ascii")
    endpoint = Endpoint(uri=foreign.url, digest="", name="m", version=1, url=foreign.url)
    run = Run.model_construct(id="r", home=str(tmp_path), endpoint=endpoint)
    with run.client(timeout=1.0, attempts=1) as client:
        with pytest.raises(Unavailable, match="did not respond"):
            client.predict("a")
        with pytest.raises(Unavailable, match="did not respond"):
            asyncio.run(client.predict_async("a"))
    assert foreign.received == b""


def test_a_token_of_ray_from_a_file(foreign: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray.token").write_text(TOKEN, encoding="ascii")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray.token"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    jobs = JobsApiClient(foreign.url)
    with pytest.raises(Unavailable, match=r"no Ray cluster answers at .* \(another user's program listens there\)"):
        jobs.version()
    with pytest.raises(ConnectionError, match="another user's program"):
        asyncio.run(jobs.log_stream("job", 1.0)._read())  # type: ignore[attr-defined]
    assert foreign.received == b""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    with pytest.raises(UserError):
        JobsApiClient(foreign.url).version()
    assert b"Bearer theirs" in foreign.received, "chosen for this cluster"


def test_the_port_of_a_ray_head(foreign: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process still runs, its control service has ended."""
    service = Process(pid=os.getpid(), address=foreign.url.removeprefix("http://"), log=tmp_path / "ray.log", mark="m")
    service = service.model_copy(update={"create_time": psutil.Process().create_time()})
    state.write(tmp_path, state.Services(format=state.FORMAT, ray=service))
    state.mlflow_token(tmp_path)
    state.token(tmp_path)
    monkeypatch.setattr("raypath.deploy.local.ray_connection.wait_ready", lambda home, mlflow: None)
    monkeypatch.setattr("raypath.deploy.local.ray_connection._init_ray", lambda *_: pytest.fail("the token was sent"))
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever head the tests before this one used
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(Unavailable, match=r"is not running: another user's program listens there; run `raypath down`"):
        RayConnection().connect(tmp_path)
