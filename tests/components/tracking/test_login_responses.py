"""Responses of the login in front of MLflow, in full: pages, headers and messages."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from raypath.components.tracking.server import codes
from raypath.components.tracking.server import login as server_login
from raypath.components.tracking.server.codes import Signer, UsedCodes, link
from raypath.components.tracking.server.login import LoginMiddleware, cookie_name

TOKEN = "t" * 64
FIXED = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>MLflow</title>{}\n'
    "<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}}</style>\n"
    "<p>{}</p></html>"
)
VIEW = (
    """<script>for (const [key, value] of [["mlflow.workflowType_v1", '"machine_learning"'],\n"""
    '["mlflow.assistant.panelOpen_v1", "false"], ["mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true"]])\n'
    "localStorage.getItem(key) ?? localStorage.setItem(key, value)</script>"
    '<meta http-equiv="refresh" content="0;url=./#/experiments">'
)

OFF = "gateway gateway-proxy jobs assistant genai prompt-optimization demo workspaces mcp-servers"


class Used(UsedCodes):
    """Codes in memory."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def use(self, code: str, expires: int) -> bool:
        self.seen.append(code)
        return self.seen.count(code) == 1


async def _inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "inside", "kind": scope["type"]})


@pytest.fixture
def app() -> LoginMiddleware:
    return LoginMiddleware(_inner, TOKEN, Used(), "raypath up", own_connections=False)


def _ask(
    app: LoginMiddleware, path: str, method: str = "GET", query: str = "", kind: str = "http", **headers: str
) -> tuple[Any, dict[str, str], str]:
    """Return status (or what the application did), headers and text."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": kind, "path": path, "method": method, "query_string": query.encode()}
    scope["headers"] = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    asyncio.run(app(scope, None, send))  # type: ignore[arg-type]
    if len(sent) == 1:
        return sent[0], {}, ""
    start, body = sent
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    assert found.pop("content-length") == str(len(body["body"]))
    assert FIXED.items() <= found.items()
    return start["status"], {k: v for k, v in found.items() if k not in FIXED}, body["body"].decode()


def test_what_passes_without_a_login(app: LoginMiddleware) -> None:
    assert _ask(app, "/health")[0] == {"type": "inside", "kind": "http"}
    assert _ask(app, "/x", kind="lifespan")[0] == {"type": "inside", "kind": "lifespan"}
    assert _ask(app, "/x", kind="websocket")[0] == {"type": "websocket.close", "code": 1008}


def test_a_program_without_a_login(app: LoginMiddleware) -> None:
    message = {"error_code": "UNAUTHENTICATED", "message": "wrong token, or none: set MLFLOW_TRACKING_TOKEN"}
    headers = {"content-type": "application/json; charset=utf-8", "www-authenticate": 'Bearer realm="mlflow"'}
    for given in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic x"}, {"authorization": f"Token {TOKEN}"}):
        status, found, text = _ask(app, "/x", **given)
        assert (status, found, json.loads(text)) == (401, headers, message)


def test_a_browser_without_a_login(app: LoginMiddleware) -> None:
    status, found, text = _ask(app, "/x", accept="text/html,*/*")
    assert (status, found["content-type"], found["www-authenticate"]) == (
        *(401, "text/html; charset=utf-8"),
        'Bearer realm="mlflow"',
    )
    how = "Run <code>raypath up</code> and open the link that it prints."
    assert text == HEAD.format("", f"This MLflow server asks for a login. {how}")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Basic", "BASIC"])
def test_a_token_lets_a_program_in(app: LoginMiddleware, scheme: str) -> None:
    given = base64.b64encode(f"me:{TOKEN}".encode()).decode() if scheme.lower() == "basic" else TOKEN
    assert _ask(app, "/x", authorization=f"{scheme} {given}")[0] == {"type": "inside", "kind": "http"}


@pytest.mark.parametrize(
    ("path", "off"),
    [
        ("/gateway", True),
        ("/gateway/x", True),
        ("//gateway", True),
        ("/v1/traces", True),
        ("/gateways", False),
        ("/api/2.0/jobs/1", True),
        ("/ajax-api/3.0/mlflow/scorer", True),
        ("/api/2.0/mlflow/issues/invoke", True),
        ("/api/2.0/mlflow/runs/create-promptlab-run", True),
        ("/api/2.0/mlflow/runs/create", False),
        ("/api/2.0/mlflow/scorers", False),
        ("/x/gateway", False),
    ]
    + [
        (f"/api/2.0/mlflow/{name}", True)
        for name in [
            "gateway",
            "gateway-proxy",
            "jobs",
            "assistant",
            "genai",
            "prompt-optimization",
            "demo",
            "workspaces",
            "mcp-servers",
        ]
    ],
)
def test_routes_that_are_off(app: LoginMiddleware, path: str, off: bool) -> None:
    status, found, text = _ask(app, path, authorization=f"Bearer {TOKEN}")
    if not off:
        assert status == {"type": "inside", "kind": "http"}
        return
    message = {"error_code": "ENDPOINT_NOT_FOUND", "message": "this route of MLflow is switched off"}
    assert (status, json.loads(text), found) == (404, message, {"content-type": "application/json; charset=utf-8"})


def test_a_link_is_valid_once(app: LoginMiddleware, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(codes.time, "time", lambda: clock[0])
    url = link("http://host", TOKEN)
    path, _, query = url.removeprefix("http://host").partition("?")
    assert (path, query[:5]) == ("/login", "code=")
    html = {"content-type": "text/html; charset=utf-8"}
    assert _ask(app, path, "HEAD", query) == (200, html, "")
    plain = {"content-type": "text/plain; charset=utf-8", "allow": "GET, HEAD"}
    assert _ask(app, path, "POST", query) == (405, plain, "")
    status, found, text = _ask(app, path, query=query)
    cookie = found.pop("set-cookie")
    assert (status, found) == (200, html)
    assert text == HEAD.format(VIEW, 'Logged in. <a href="./#/experiments">Continue</a>')
    name, _, rest = cookie.partition("=")
    value, _, attributes = rest.partition("; ")
    assert name == cookie_name(TOKEN)
    assert (len(name), name[:15]) == (23, "raypath-mlflow-")
    assert attributes == "Path=/; HttpOnly; SameSite=Strict; Max-Age=43200"
    how = "Run <code>raypath up</code> and open the new one."
    gone = (401, html, HEAD.format("", f"This link has expired or was used before. {how}"))
    assert _ask(app, path, query=query) == gone
    other = link("", TOKEN).partition("?")[2]
    clock[0] += codes.CODE_SECONDS
    assert _ask(app, path, query=other) == gone
    for wrong in ("", "code=", "code=1.2.3", f"code={value}"):
        assert _ask(app, path, query=wrong) == gone
    inside = {"type": "inside", "kind": "http"}

    def visit(cookies: str = f"a=b; {name}={value}", method: str = "GET", **headers: str) -> bool:
        return bool(_ask(app, "/x", method, cookie=cookies, host="host", **headers)[0] == inside)

    assert visit()
    assert visit(origin="http://host")
    assert visit(origin="https://host")
    assert visit(sec_fetch_site="same-origin")
    assert visit(sec_fetch_site="none")
    assert visit(sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document")
    assert not visit(sec_fetch_site="cross-site")
    assert not visit("POST", sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document")
    assert not visit(sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="iframe")
    assert not visit(sec_fetch_site="same-site")
    assert not visit(origin="http://other")
    assert not visit(f"{name}x={value}")
    clock[0] = 1000.0 + codes.COOKIE_SECONDS
    assert not visit()


def test_a_signed_value_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.5]
    monkeypatch.setattr(codes.time, "time", lambda: clock[0])
    signer = Signer(TOKEN, "code")
    value = signer.sign(600)
    expires, nonce, mac = value.split(".")
    assert (expires, len(nonce), len(mac)) == ("1600", 32, 64)
    assert signer.expiry(value) == 1600
    assert signer.sign(600) != value
    clock[0] = 1599.0
    assert signer.expiry(value) == 1600
    clock[0] = 1600.0
    assert signer.expiry(value) == 0
    clock[0] = 0.0
    for wrong in (f"1601.{nonce}.{mac}", f"{expires}.{nonce}.{mac[:-1]}", "", "x"):
        assert signer.expiry(wrong) == 0
    assert Signer(TOKEN, "cookie").expiry(value) == 0
    assert Signer("u" * 64, "code").expiry(value) == 0
    assert (codes.CODE_SECONDS, codes.COOKIE_SECONDS) == (600, 43_200)


def test_headers_that_are_repeated() -> None:
    headers = server_login._Headers({"headers": [(b"Cookie", b"a=1"), (b"cookie", b"b=2"), (b"X", b"1"), (b"x", b"2")]})
    assert (headers.one("cookie"), headers.one("x"), headers.one("none")) == ("a=1; b=2", "", "")
