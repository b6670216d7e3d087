"""Lingering close: a client that still sends its body gets the whole response, and not a reset connection."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from raypath.components.serving.middleware import lingering_close
from raypath.components.serving.middleware.edge import EdgeMiddleware
from tests.components.serving.server import served_app
from tests.security.raw import answer, connect, head, status

SIZE = 8 << 20
"""Bytes of a body: more than the buffers of both sockets hold."""


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answer 413 before the body is read; /open leaves the connection open, /read reads the body first."""
    closing = [] if scope["path"] == "/open" else [(b"Connection", b"Close")]
    while scope["path"] == "/read" and (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"8"), *closing]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b"too ", "more_body": True})
    await send({"type": "http.response.body", "body": b"much"})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that refuses every request."""
    with served_app(EdgeMiddleware(refuse)) as url:
        yield url


@pytest.mark.parametrize("path", ["/refused", "/%00"])
def test_a_large_body_that_is_refused(url: str, path: str) -> None:
    """A reset would fail `sendall`, or lose the response."""
    with connect(url) as line:
        line.sendall(head("POST", path, more=b"content-length: %d\r\n" % SIZE) + b"\r\n" + b"x" * SIZE)
        time.sleep(0.05)
        assert status(answer(line)) == (413 if path == "/refused" else 400)
        assert line.recv(1) == b"", "the connection is closed after it"


def test_a_large_body_in_chunks_that_is_refused(url: str) -> None:
    answered = httpx.post(url + "/refused", content=(b"x" * 65_536 for _ in range(SIZE >> 16)), timeout=20)
    assert (answered.status_code, answered.text) == (413, "too much")


def test_a_response_does_not_wait_for_the_body(url: str) -> None:
    with connect(url) as line:
        line.sendall(head("POST", "/refused", more=b"content-length: 100\r\n") + b"\r\nx")
        begin = time.monotonic()
        found = answer(line)
        assert (status(found), found[-8:]) == (413, b"too much")
        assert b"100 Continue" not in found
        assert time.monotonic() - begin < lingering_close.SECONDS / 2
        line.sendall(b"x" * 99)
        assert line.recv(1) == b"", "closed as soon as the body is complete"
        assert time.monotonic() - begin < lingering_close.SECONDS / 2


def test_a_client_that_sends_nothing_more_is_left_after_a_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering_close, "SECONDS", 0.3)
    with connect(url) as line:
        line.sendall(head("POST", "/refused", more=b"content-length: 100\r\nexpect: 100-continue\r\n") + b"\r\n")
        found = answer(line)
        assert status(found) == 413
        begin = time.monotonic()
        assert line.recv(1) == b""
        assert 0.1 < time.monotonic() - begin < 3


def test_complete_requests_are_not_held(url: str) -> None:
    for path, method in (("/read", "POST"), ("/refused", "GET")):
        with connect(url) as line:
            begin = time.monotonic()
            line.sendall(head(method, path, more=b"content-length: 1\r\n" if method == "POST" else b"") + b"\r\n")
            line.sendall(b"x" * (method == "POST"))
            assert status(answer(line)) == 413
            assert line.recv(1) == b""
            assert time.monotonic() - begin < lingering_close.SECONDS / 2
    with connect(url) as line:
        for _ in range(2):
            line.sendall(head("GET", "/open") + b"\r\n")
            assert status(answer(line)) == 413, "the connection goes on"


def test_a_client_that_goes_away_ends_the_wait(url: str) -> None:
    for _ in range(3):
        line = connect(url)
        line.sendall(head("POST", "/refused", more=b"content-length: 100\r\n") + b"\r\nx")
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        line.close()
    assert httpx.get(url + "/open").status_code == 413
