"""First checks of a request, in the HTTP servers of Ray Serve: its proxies and the replicas' own servers.

Ray reads some headers before the application sees a request, and uvicorn takes the trailers of a chunked body for
headers. `middlewares` is the callback that Ray calls when it starts a server, if its environment has CALLBACK.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from raypath.components.serving.middleware.lingering_close import LingeringClose

if TYPE_CHECKING:
    from starlette.middleware import Middleware

CALLBACK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middlewares"}
"""Environment in which Ray's HTTP servers use these middlewares."""
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ID = b"x-request-id"
_RAY_HEADERS = re.compile(
    rb"x-request-timeout-seconds|x-request-disconnect-disabled|x[-_]session[-_]id|serve[-_]multiplexed[-_]model[-_]id"
)
_PREFIXES = (b"x-request-", b"x-session", b"x_session", b"serve")
"""Prefixes of the headers that are checked."""


class EdgeMiddleware:
    """Reject invalid requests with 400, and remove the headers that only Ray reads: it does so without a key."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        connection = LingeringClose(receive, send)
        if detail := invalid_request(scope):
            await _reject(detail, connection.send)
        else:
            headers = scope["headers"]
            if not all(_passes(name, value) for name, value in headers):
                scope = {**scope, "headers": [pair for pair in headers if _passes(*pair)]}
            await self.app(scope, connection.receive, connection.send)
        await connection.finish()


def invalid_request(scope: Any) -> str:
    """Return the reason to reject a request whatever it asks for, "" without one."""
    if _CONTROL.search(scope["path"]):
        return "the path has control characters"
    if any(name == b"trailer" for name, _ in scope["headers"]):
        return "trailers are not supported"
    return ""


def middlewares() -> list[Middleware]:
    """Return the middlewares for a server of Ray Serve in this process, and make it reject trailers."""
    from starlette.middleware import Middleware

    from raypath.components.serving.middleware.strict_http import reject_trailers

    reject_trailers()
    return [Middleware(EdgeMiddleware)]


def _passes(name: bytes, value: bytes) -> bool:
    if not name.startswith(_PREFIXES):
        return True
    if name == _ID:
        return REQUEST_ID.fullmatch(value) is not None
    return _RAY_HEADERS.fullmatch(name) is None


async def _reject(detail: str, send: Any) -> None:
    body = json.dumps({"type": "about:blank", "title": "Bad Request", "status": 400, "detail": detail}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
