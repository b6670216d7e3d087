"""The login in front of MLflow, over real sockets, with an application behind it that says what reached it."""

from __future__ import annotations

import base64
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from raypath.components.tracking.server import codes, peer
from raypath.components.tracking.server.codes import Signer, UsedCodes, link
from raypath.components.tracking.server.login import LoginMiddleware
from tests.mlflow_login import TOKEN
from tests.waiting import free_port

OTHER = "2" * 64
PAGE = "/ajax-api/2.0/mlflow/experiments/search"


async def _inner(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})


class Server:
    """The login on a port, and requests to it."""

    def __init__(self, database: str) -> None:
        self.port = free_port()
        self.app = LoginMiddleware(_inner, TOKEN, UsedCodes(database), "raypath up", own_connections=True)
        config = uvicorn.Config(
            self.app, host="127.0.0.1", port=self.port, log_level="error", lifespan="off", proxy_headers=False
        )
        self.server = uvicorn.Server(config)

    def get(
        self, path: str = PAGE, method: str = "GET", headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        self.body = response.read().decode()
        connection.close()
        return response

    def status(self, path: str = PAGE, method: str = "GET", **headers: str) -> int:
        return self.get(path, method, {name.replace("_", "-"): value for name, value in headers.items()}).status

    def login(self, url: str) -> str:
        """Open a link; return the cookie."""
        response = self.get(url.removeprefix("http://x"))
        assert response.status == 200, self.body
        return response.getheader("set-cookie", "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(f"sqlite:///{tmp_path_factory.mktemp('login')}/db")
    thread = threading.Thread(target=made.server.run, daemon=True)
    thread.start()
    while not made.server.started:
        time.sleep(0.01)
    yield made
    made.server.should_exit = True
    thread.join(10)


def _basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


def test_only_the_token_lets_a_program_in(server: Server) -> None:
    assert server.status(authorization=f"Bearer {TOKEN}") == 200
    assert server.status(authorization=_basic(TOKEN)) == 200
    for wrong in ("", TOKEN, "Bearer", "Bearer ", f"Bearer {TOKEN} ", f"Bearer {TOKEN[:-1]}", f"Bearer {OTHER}",
                  f"Token {TOKEN}", "Basic !", _basic(""), _basic(OTHER), "Basic " + "é", "Bearer é"):  # fmt: skip
        assert server.status(authorization=wrong) == 401, wrong
        assert TOKEN not in server.body
    assert server.status() == 401
    assert "MLFLOW_TRACKING_TOKEN" in server.body
    assert server.status("/health") == 200
    for path in ("/health/", "/health/../" + PAGE, "//health", "/HEALTH", "/health%2f", "/version", "/", "/graphql"):
        assert server.status(path) == 401, path


def test_two_headers_are_no_login(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(
            f"GET {PAGE} HTTP/1.0\r\nAuthorization: Bearer {OTHER}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_a_browser_without_a_login_is_told_what_to_run(server: Server) -> None:
    response = server.get("/", headers={"accept": "text/html,*/*"})
    assert response.status == 401
    assert "<code>raypath up</code>" in server.body
    assert (response.getheader("cache-control"), response.getheader("x-frame-options")) == ("no-store", "DENY")


def test_a_link_works_once_and_gives_a_strict_cookie(server: Server) -> None:
    url = link("http://x", TOKEN)
    assert server.status(url.removeprefix("http://x"), "HEAD") == 200
    assert server.status(url.removeprefix("http://x"), "POST") == 405
    cookie = server.login(url)
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    value = cookie.partition(";")[0]
    assert server.status(cookie=value) == 200
    assert server.status(cookie=f"a=b; {value}; c=d") == 200
    assert server.status(url.removeprefix("http://x")) == 401
    assert "Set-Cookie" not in server.body
    for wrong in (
        value[:-1],
        value.replace("=", "=9", 1),
        f"{value.partition('=')[0]}=",
        value.replace("raypath", "x"),
    ):
        assert server.status(cookie=wrong) == 401, wrong
    # A code is no cookie, and a cookie is no code.
    code = link("http://x", TOKEN).partition("code=")[2]
    assert server.status(cookie=f"{server.app.cookie}={code}") == 401
    assert server.status(f"/login?code={value.partition('=')[2]}") == 401
    for wrong in ("", "x", "..", "é", f"{Signer(OTHER, 'code').sign(60)}", Signer(TOKEN, "code").sign(-1)):
        assert server.status(f"/login?code={wrong.encode().hex() if wrong == 'é' else wrong}") == 401, wrong


def test_a_used_code_stays_used_in_other_workers_and_after_a_restart(server: Server, tmp_path: Path) -> None:
    code = Signer(TOKEN, "code").sign(60)
    expires = Signer(TOKEN, "code").expiry(code)
    database = f"sqlite:///{tmp_path}/db"
    first, second = UsedCodes(database), UsedCodes(database)
    assert first.use(code, expires)
    assert not first.use(code, expires)
    assert not second.use(code, expires)
    results: list[bool] = []
    again = Signer(TOKEN, "code").sign(60)
    workers = [UsedCodes(database) for _ in range(8)]
    threads = [threading.Thread(target=lambda w=w: results.append(w.use(again, expires))) for w in workers]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]


def test_a_cookie_expires(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    value = f"{server.app.cookie}={Signer(TOKEN, 'cookie').sign(codes.COOKIE_SECONDS)}"
    assert server.status(cookie=value) == 200
    now = time.time()
    monkeypatch.setattr(codes.time, "time", lambda: now + codes.COOKIE_SECONDS + 2)
    assert server.status(cookie=value) == 401


def test_pages_of_other_ports_cannot_use_the_cookie(server: Server) -> None:
    """Pages at other ports of 127.0.0.1, so of other users, are of the same site: a strict cookie is sent."""
    value = server.login(link("http://x", TOKEN)).partition(";")[0]
    here = f"http://127.0.0.1:{server.port}"
    assert server.status(method="POST", cookie=value, origin=here, sec_fetch_site="same-origin") == 200
    assert server.status(cookie=value, sec_fetch_site="none") == 200
    for origin in ("http://127.0.0.1:1", f"http://localhost:{server.port}", "null", "https://evil.example"):
        assert server.status(method="POST", cookie=value, origin=origin) == 401, origin
    for site in ("same-site", "cross-site"):
        assert server.status(cookie=value, sec_fetch_site=site, sec_fetch_mode="no-cors") == 401, site
        frame = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}
        assert server.status(cookie=value, sec_fetch_site=site, **frame) == 401, site
    opened = {"sec_fetch_site": "same-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert server.status(cookie=value, **opened) == 200
    assert server.status(method="POST", cookie=value, **opened) == 401


CLIENT = """
import encodings.idna, http.client, os, sys
os.setuid(65534)
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
connection.request("GET", sys.argv[2], headers={"Cookie": sys.argv[3]})
print(connection.getresponse().status)
"""


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="becomes another user")
def test_another_user_gains_nothing_by_a_link_or_a_cookie_that_was_seen(server: Server) -> None:
    url = link("http://x", TOKEN)
    value = server.login(link("http://x", TOKEN)).partition(";")[0]

    def as_nobody(path: str, cookie: str = "") -> str:
        command = [sys.executable, "-c", CLIENT, str(server.port), path, cookie]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.strip()

    assert as_nobody("/health") == "200"
    assert as_nobody(PAGE, value) == "401"
    assert as_nobody(url.removeprefix("http://x")) == "401"
    assert server.login(url), "the owner's link is still good"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_owner_of_a_connection_is_found_also_over_an_ipv6_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", listening.getsockname()[1]))
        accepted, address = listening.accept()
        with accepted:
            assert peer.is_own(address, accepted.getsockname())
    assert not peer.is_own(("127.0.0.1", 1), ("127.0.0.1", 2)), "a connection that is gone"


def test_routes_that_are_not_used_are_off(server: Server) -> None:
    for path in ("/gateway/mlflow/v1/chat/completions", "/v1/traces", "/ajax-api/3.0/jobs/1", "/api/3.0/mlflow/jobs",
                 "/ajax-api/2.0/mlflow/gateway-proxy", "/ajax-api/3.0/mlflow/gateway/secrets/create",
                 "/ajax-api/3.0/mlflow/assistant/message", "/api/3.0/mlflow/mcp-servers", "/api/3.0/mlflow/workspaces",
                 "//gateway/x", "/ajax-api/3.0/mlflow/scorer/invoke"):  # fmt: skip
        assert server.status(path, authorization=f"Bearer {TOKEN}") == 404, path
    for path in ("/ajax-api/3.0/mlflow/scorers/list", "/api/2.0/mlflow/runs/create", "/graphql"):
        assert server.status(path, authorization=f"Bearer {TOKEN}") == 200, path
