"""Authorities that clients trust: by option and by $RAYPATH_CA_FILE, and servers that have a certificate of none."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from raypath import Client
from raypath.components.evaluation.generation.judge import Judge
from raypath.components.serving.control import client as control
from raypath.components.tracking import http, trust
from raypath.deploy.cli import main as cli
from raypath.deploy.local.tls import project
from tests.raised import raised

MODELS = b'{"data": [{"id": "m"}], "name": "m", "version": 1, "status": "ok"}'
STREAM = b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\ndata: [DONE]\n\n'


class _Handler(BaseHTTPRequestHandler):
    """Answers each request: a POST with a stream of a chat, a GET with a list of models that is a health as well."""

    def do_GET(self) -> None:
        self._answer(MODELS, "application/json")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(STREAM, "text/event-stream")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that end the handshake."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A server with a certificate of the project's authority."""
    home = tmp_path_factory.mktemp("home")
    project.ensure_server(home, ["localhost"])
    files = project.ProjectFiles(home)
    server = _Server(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield SimpleNamespace(url=f"https://localhost:{server.server_address[1]}", files=files)
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_of_an_unknown_authority_is_said_at_once(place: SimpleNamespace) -> None:
    with Client(place.url, attempts=3) as client:
        told = raised(client.health)
    assert told.startswith("Unavailable: the certificate of https://localhost:")
    assert "--ca FILE or $RAYPATH_CA_FILE" in told
    with pytest.raises(ConnectionError, match="certificate verify failed"):
        http.send("GET", place.url)
    assert control.health(place.url) is None


def test_a_file_is_the_only_authority(place: SimpleNamespace) -> None:
    with Client(place.url, verify=place.files.authority) as client:
        assert client.health().name == "m"
    assert len(trust.context(place.files.authority).get_ca_certs()) == 1
    assert http.send("GET", place.url, ca_file=str(place.files.authority)).ok


def test_the_variable_is_for_each_client(place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.CA_FILE, str(place.files.authority))
    with Client(place.url) as client:
        assert client.health().name == "m"
    assert (control.health(place.url) or {})["name"] == "m"
    judge = Judge(place.url)
    judge.check()
    assert judge.model == "m"
    assert len(trust.context().get_ca_certs()) >= len(ssl.create_default_context().get_ca_certs()) + 1
    other = project.ProjectFiles(place.files.home / "other")
    project.ensure_server(other.home, ["localhost"])
    with Client(place.url, verify=other.authority) as client:
        assert "is not trusted" in raised(client.health), "an argument counts alone"


def test_chat_trusts_the_authority_that_it_is_given(
    place: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    asked = ["chat", "hi", "--url", place.url]
    assert cli.main([*asked, "--ca", str(place.files.authority)]) == 0
    assert capsys.readouterr().out == "Hello\n"
    assert cli.main(asked) == 1
    assert "give the file of its authority" in capsys.readouterr().err
    monkeypatch.setenv(trust.CA_FILE, str(place.files.authority))
    assert cli.main(asked) == 0
    assert cli.main(["chat", "hi", "--model", "m", "--ca", str(place.files.authority)]) == 2


@pytest.mark.parametrize("text", [None, "nothing"])
def test_a_file_without_certificates_is_one_line(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    assert raised(lambda: Client(place.url, verify=file)).startswith(f"UserError: {file}: no")
    monkeypatch.setenv(trust.CA_FILE, str(file))
    assert "$RAYPATH_CA_FILE: " in raised(lambda: Client(place.url))
    assert "$RAYPATH_CA_FILE: " in raised(lambda: http.send("GET", place.url))
    Client("http://127.0.0.1:9").close()
