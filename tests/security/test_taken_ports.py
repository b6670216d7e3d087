"""Another user listens at the address of an MLflow server that has ended: the home's token is not sent there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypath.components.core.errors import Unavailable
from raypath.components.register import _get
from raypath.components.registry.client import list_models
from raypath.components.tracking import login
from raypath.components.tracking.uploader import reachable

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
        _get(foreign.url, "model-versions/get", name="m", version="1")
    with pytest.raises(Unavailable, match="MLflow does not respond"):
        list_models(foreign.url)
    assert not reachable(foreign.url)
    assert foreign.received == b""


def test_the_token_in_the_environment_of_a_worker(foreign: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in login.variables(TOKEN).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unavailable, match="MLflow does not respond"):
        _get(foreign.url, "model-versions/get", name="m", version="1")
    assert not reachable(foreign.url)
    assert foreign.received == b""


def test_a_server_of_others_that_the_user_has_chosen(foreign: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "theirs")
    assert _get(foreign.url, "model-versions/get", name="m", version="1") == {}
    assert b"Bearer theirs" in foreign.received


def test_a_server_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_tokens", {})
    own = Listener(0)
    login.remember(own.url, TOKEN)
    assert _get(own.url, "model-versions/get", name="m", version="1") == {}
    assert TOKEN.encode() in own.received
    own.socket.close()
