"""Requests that try to leave a name, a page, a log line or the machine, over every route of the table."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from raypath.components.serving.api.route_table import PUBLIC_ROUTES, RULES
from raypath.components.serving.metering.api_keys import KeyStore
from tests.components.serving.server import LIMITS, served, service_of
from tests.security.test_tenants import requests_of
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
PRIVATE = sorted(set(RULES) - set(PUBLIC_ROUTES))
POSTED = sorted(route for route, need in RULES.items() if need in ("predict", "embed") and "encrypted" not in route)
"""Routes that take JSON; those of encrypted predictions are off here, and take bytes (test_encrypted_predictions)."""
JSON = {"content-type": "application/json"}
SCRIPT = "<script>alert(1)</script>"
NAMES = [
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "../../../../etc/passwd",
    "..%2f..%2fkeys.json",
    "m/../../keys.json",
    "file:///etc/passwd",
    "a\r\nx-injected: 1",
    '{"time": "forged"}',
    "\x1b[2Jcleared",
    "{{7*7}}${7*7}",
    "\u202egnp.exe",
]
"""Names of models that are markup, paths, header lines, log lines, escapes of terminals and templates."""


@dataclass
class Place:
    """A running service with its log of requests."""

    client: httpx.Client
    key: str
    lines: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.client.request(method, path, headers={"x-api-key": self.key, **more.pop("headers", {})}, **more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("hostile")
    _, key = KeyStore(folder / "keys").create("anna", role="admin")
    settings = LIMITS.model_copy(update={"log_requests": True})
    service = service_of({"m": tiny_classifier(folder / "m")}, settings, access=str(folder / "keys"))
    lines: list[str] = []
    build = service.__serve_build_asgi_app__

    def logged() -> Any:
        app = build()
        app.write = lines.append
        return app

    service.__serve_build_asgi_app__ = logged
    with served(service) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield Place(client, key, lines)


@pytest.mark.parametrize("route", sorted(RULES))
def test_a_hostile_name_stays_a_name(place: Place, route: str) -> None:
    """No markup in a page, no header, no file, no further line in the log."""
    for name in NAMES:
        method, path, body = requests_of(route, quote(name, safe=""))
        body = json.loads(json.dumps(body).replace(quote(name, safe=""), "n")) if body else None
        if isinstance(body, dict) and "model" in body:
            body["model"] = name
        before = len(place.lines)
        response = place.ask(method, path, json=body, params={"q": name, "since": name, "by": name})
        assert response.status_code < 500, (name, response.text)
        assert "x-injected" not in response.headers
        assert "root:" not in response.text
        kind = response.headers["content-type"].partition(";")[0]
        assert response.headers["x-content-type-options"] == "nosniff"
        if kind == "text/html":
            assert name not in response.text
        else:
            assert kind in ("application/json", "application/problem+json")
        for line in place.lines[before:]:
            assert "\n" not in line
            assert "\x1b" not in line
            assert json.loads(line)["status"] < 500


@pytest.mark.parametrize("route", PRIVATE)
def test_a_key_in_a_url_or_a_cookie_is_none(place: Place, route: str) -> None:
    method, path, body = requests_of(route, "m")
    key = place.key
    url = place.client.base_url
    tries: list[dict[str, Any]] = [
        {"params": dict.fromkeys(("key", "api_key", "apikey", "access_token", "token", "x-api-key"), key)},
        {"headers": {"cookie": f"key={key}; session={key}; x-api-key={key}"}},
        {"headers": {"authorization": f"Basic {key}"}},
        {"headers": {"referer": f"{url}?key={key}", "x-forwarded-authorization": f"Bearer {key}"}},
    ]
    for more in tries:
        response = place.client.request(method, path, json=body, **more)
        assert response.status_code == 401
        assert key not in response.text + str(response.headers)
    assert place.lines
    assert not any(key.split("_")[2] in line for line in place.lines), "what is behind the path is not logged"


@pytest.mark.parametrize("route", POSTED)
def test_an_address_in_a_request_is_a_text(place: Place, route: str) -> None:
    """No field of a request makes the service open a connection."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.02)
        port = trap.getsockname()[1]
        addresses = [f"{scheme}://127.0.0.1:{port}/x" for scheme in ("http", "https", "ftp", "s3", "hf", "gopher")]
        for address in (*addresses, f"http://[::ffff:127.0.0.1]:{port}/", f"//127.0.0.1:{port}/", f"jdbc:x://:{port}"):
            method, path, body = requests_of(route, "m")
            text = json.dumps(body).replace("tea", address)
            extra = {"image_url": address, "callback": address, "base": address, "uri": address, "$ref": address}
            for sent in (json.loads(text), {**json.loads(text), **extra}):
                headers = {"referer": address, "x-forwarded-host": f"127.0.0.1:{port}", "host": f"127.0.0.1:{port}"}
                assert place.ask(method, path, json=sent, headers=headers).status_code in (200, 422), path
        with pytest.raises(TimeoutError):
            trap.accept()


@pytest.mark.parametrize("route", POSTED)
def test_prototypes_and_requests_over_the_limits(place: Place, route: str) -> None:
    method, path, body = requests_of(route, "m")
    plain = json.dumps(body)
    poison = ['"__proto__": {"admin": true}', '"constructor": {"prototype": {"admin": true}}', '"__class__": "x"']
    for part in poison:
        response = place.ask(
            method, path, content=plain[:-1] + f", {part}}}", headers={"content-type": "application/json"}
        )
        assert response.status_code in (200, 422)
        assert "admin" not in response.text
        assert "__" not in response.text
    over = [
        (413, plain.replace("tea", "x" * LIMITS.max_body)),
        (422, plain.replace("tea", "x" * (LIMITS.max_characters + 1))),
        (422, "[" * 40_000 + "]" * 40_000),
        (422, plain.replace('"tea"', "1e999")),
        (422, plain.replace('"tea"', "9" * 5_000)),
        (422, plain.replace('"tea"', '"\\ud800"')),
    ]
    for status, content in over:
        response = place.ask(method, path, content=content, headers=JSON)
        assert response.status_code == status, response.text[:200]
        assert len(response.text) < 2_000, "a rejected text is not sent back"


def test_paths_of_files_are_no_names_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from raypath.deploy.cli import main as cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    (tmp_path / "outside.json").write_text("{}")
    for name in ("../outside", "/etc/passwd", "a/b", "..", "a\nb", "\x1b[2J", "-"):
        for args in (["keys", "tenant", name], ["keys", "create", name], ["keys", "create", "x", "--models", name]):
            assert cli.main(args) == 2, args
            said = capsys.readouterr()
            assert said.err.count("\n") == 1
            assert "\x1b" not in said.err + said.out
    found = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert set(found) <= {"outside.json", "keys.lock", "log.jsonl", "head.json", ".lock", "anchors.jsonl", "pepper"}
