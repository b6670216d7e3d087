"""ASGI middleware that asks for a login before MLflow sees a request.

Programs send the token, as `Authorization: Bearer TOKEN` or as the password of basic authentication (any user name);
MLflow's clients take it from MLFLOW_TRACKING_TOKEN. A browser opens a link with a one-time code, and has a cookie from
then on. Without a login only `/health` responds.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from raypath.components.tracking.server import peer
from raypath.components.tracking.server.codes import COOKIE_SECONDS, Signer, UsedCodes

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_UNUSED = re.compile(
    r"/(gateway|v1/traces)(/|$)"
    r"|/(ajax-api|api)/[\d.]+/(jobs|mlflow/(gateway|gateway-proxy|jobs|assistant|scorer|issues/invoke|genai|"
    r"prompt-optimization|demo|workspaces|mcp-servers|runs/create-promptlab-run))(/|$)"
)
"""Routes of MLflow that Raypath does not use: they call other servers, run jobs or store keys of other services."""
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>MLflow</title>{head}
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}}</style>
<p>{text}</p></html>"""

_FIRST_VIEW = """for (const [key, value] of [["mlflow.workflowType_v1", '"machine_learning"'],
["mlflow.assistant.panelOpen_v1", "false"], ["mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true"]])
localStorage.getItem(key) ?? localStorage.setItem(key, value)"""
"""MLflow 3.17 opens on language models' traces, with its assistant in front, in a browser that has chosen nothing."""


@dataclass(frozen=True)
class LoginMiddleware:
    """Pass on requests with the token or a valid cookie; answer the login link; reject everything else with 401."""

    app: App
    token: str
    used: UsedCodes
    how: str
    """Command that prints a login link, for the page of a browser without a login."""
    own_connections: bool
    """Accept codes and cookies over connections of this user (and root) only; for a server on loopback."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = _Headers(scope)
        if scope["path"] == "/health":
            return await self.app(scope, receive, send)
        if scope["path"] == "/login":
            return await self._login(scope, send)
        if not self._has_token(headers) and not self._has_cookie(scope, headers):
            return await self._reject(headers, send)
        if _UNUSED.match(re.sub("/+", "/", scope["path"])):
            message = {"error_code": "ENDPOINT_NOT_FOUND", "message": "this route of MLflow is switched off"}
            return await _respond(send, 404, json.dumps(message), "application/json")
        await self.app(scope, receive, send)

    def _has_token(self, headers: _Headers) -> bool:
        scheme, _, given = headers.one("authorization").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _has_cookie(self, scope: Scope, headers: _Headers) -> bool:
        values = [part.strip().partition("=") for part in headers.one("cookie").split(";")]
        valid = any(name == self.cookie and Signer(self.token, "cookie").expiry(v) for name, _, v in values)
        return valid and _is_same_origin(scope, headers) and self._is_own(scope)

    def _is_own(self, scope: Scope) -> bool:
        return not self.own_connections or peer.is_own(scope["client"], scope["server"])

    @property
    def cookie(self) -> str:
        """Name of the cookie."""
        return cookie_name(self.token)

    async def _login(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            return await _respond(send, 405, "", "text/plain", (b"allow", b"GET, HEAD"))
        if scope["method"] == "HEAD":
            return await _respond(send, 200, "", "text/html")
        [code] = parse_qs(scope["query_string"].decode("latin-1")).get("code", [""])[:1]
        expires = Signer(self.token, "code").expiry(code)
        if not expires or not self._is_own(scope) or not await _in_thread(self.used.use, code, expires):
            text = f"This link has expired or was used before. Run <code>{self.how}</code> and open the new one."
            return await _respond(send, 401, _PAGE.format(head="", text=text), "text/html")
        made = Signer(self.token, "cookie").sign(COOKIE_SECONDS)
        cookie = f"{self.cookie}={made}; Path=/; HttpOnly; SameSite=Strict; Max-Age={COOKIE_SECONDS}"
        # A page and not a redirect, after which a strict cookie is missing where a page of another site has the link.
        head = f'<script>{_FIRST_VIEW}</script><meta http-equiv="refresh" content="0;url=./#/experiments">'
        page = _PAGE.format(head=head, text='Logged in. <a href="./#/experiments">Continue</a>')
        await _respond(send, 200, page, "text/html", (b"set-cookie", cookie.encode()))

    async def _reject(self, headers: _Headers, send: Send) -> None:
        challenge = (b"www-authenticate", b'Bearer realm="mlflow"')
        if "text/html" in headers.one("accept"):
            text = f"This MLflow server asks for a login. Run <code>{self.how}</code> and open the link that it prints."
            return await _respond(send, 401, _PAGE.format(head="", text=text), "text/html", challenge)
        message = {"error_code": "UNAUTHENTICATED", "message": "wrong token, or none: set MLFLOW_TRACKING_TOKEN"}
        await _respond(send, 401, json.dumps(message), "application/json", challenge)


def cookie_name(token: str) -> str:
    """Return the name of a home's cookie: browsers send the cookies of all servers of a host to each of them."""
    return f"raypath-mlflow-{hashlib.sha256(token.encode()).hexdigest()[:8]}"


class _Headers:
    """Headers of a request, decoded."""

    def __init__(self, scope: Scope) -> None:
        self._all = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]

    def one(self, name: str) -> str:
        """Return the value of a header; "" where it is missing or repeated. Browsers may repeat `cookie`."""
        found = [value for key, value in self._all if key == name]
        return "; ".join(found) if name == "cookie" else found[0] if len(found) == 1 else ""


def _is_same_origin(scope: Scope, headers: _Headers) -> bool:
    """Return False for a request that a page of another origin makes; pages at other ports of a host are same-site."""
    host, origin = headers.one("host"), headers.one("origin")
    if origin not in ("", f"http://{host}", f"https://{host}"):
        return False
    opened = headers.one("sec-fetch-mode") == "navigate" and headers.one("sec-fetch-dest") == "document"
    if opened and scope["method"] in ("GET", "HEAD"):
        return True
    return headers.one("sec-fetch-site") in ("", "same-origin", "none")


async def _in_thread(function: Callable[..., bool], *args: Any) -> bool:
    import asyncio

    return await asyncio.to_thread(function, *args)


async def _respond(send: Send, status: int, text: str, kind: str, *headers: tuple[bytes, bytes]) -> None:
    body = text.encode()
    fixed = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
