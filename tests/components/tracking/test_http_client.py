"""HTTP requests: proxies, redirects, tokens, errors; against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from raypath.components.tracking import http
from tests.local_http import answering


class Handler(BaseHTTPRequestHandler):
    """Answer with what was received; /moved redirects, /broken is not JSON."""

    def do_GET(self) -> None:
        self.send_response(302 if self.path == "/moved" else 200)
        if self.path == "/moved":
            self.send_header("Location", "/elsewhere")
        received = {"path": self.path, "token": self.headers.get("Authorization", "")}
        body = b"{" if self.path == "/broken" else json.dumps(received).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with answering(Handler) as url:
        yield url


def test_a_response_has_its_status_and_its_body(url: str) -> None:
    found = http.send("GET", f"{url}/a", headers=http.bearer("secret"))
    assert (found.status, found.ok) == (200, True)
    assert found.json() == {"path": "/a", "token": "Bearer secret"}
    assert http.send("GET", f"{url}/broken").json() is None
    assert http.bearer("") == {}


def test_redirects_are_followed_only_on_request(url: str) -> None:
    assert http.send("GET", f"{url}/moved").status == 302
    assert http.send("GET", f"{url}/moved", follow_redirects=True).json()["path"] == "/elsewhere"


def test_the_proxy_of_the_environment_is_for_other_hosts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", url)
    assert http.send("GET", "http://host.invalid/a").json()["path"] == "http://host.invalid/a"
    with pytest.raises(ConnectionError):
        http.send("GET", "http://host.invalid/a", proxy=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert http.send("GET", f"{url}/a").json()["path"] == "/a"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "no address", "", "https://127.0.0.1:9"])
def test_without_a_response_it_is_a_connection_error(address: str) -> None:
    with pytest.raises(ConnectionError):
        http.send("GET", address, timeout=2.0)
