"""Cross-origin requests of web pages (CORS), by the setting `serve.origins`; without it browsers block them.

A browser sends no credentials by itself, since API keys are no cookies: a page has to know a key.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from fastapi.responses import Response

from raypath.components.serving.api.errors import application_path, problem
from raypath.components.serving.api.pages.pages import SAFE

METHODS = "GET, HEAD, POST"
EXPOSED = "retry-after, x-request-id"
"""Response headers that a page may read, besides the usual ones."""
MAX_AGE = 600
"""Seconds for which a browser may remember the response to a preflight request."""
_NAMES = re.compile(r"[\w\-, ]{0,2000}", re.ASCII)


class CorsMiddleware:
    """Respond to preflight requests, and let pages of these origins read responses. origins: `*` is any."""

    def __init__(self, app: Any, origins: Collection[str] = ()) -> None:
        self.app, self.origins = app, frozenset(origins)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = _headers(scope["headers"]) if scope["type"] == "http" else {}
        origin = headers.get("origin")
        if not origin:
            await self.app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await self._preflight(headers, application_path(scope))(scope, receive, send)
        else:
            await self._forward(self._allowed(origin), scope, receive, send)

    def _allowed(self, origin: str) -> dict[str, str]:
        """Return the response headers for an origin, {} if it is not allowed."""
        if "*" in self.origins:
            return {"access-control-allow-origin": "*"}
        return {"access-control-allow-origin": origin, "vary": "Origin"} if origin in self.origins else {}

    def _preflight(self, headers: dict[str, str], path: str) -> Response:
        allowed, names = self._allowed(headers["origin"]), headers.get("access-control-request-headers", "")
        if not allowed or not _NAMES.fullmatch(names):
            return problem(403, "web pages of this origin may not send requests (serve.origins)", SAFE, path)
        allowed |= {"access-control-allow-methods": METHODS, "access-control-allow-headers": names}
        return Response(status_code=204, headers={**SAFE, **allowed, "access-control-max-age": str(MAX_AGE)})

    async def _forward(self, allowed: dict[str, str], scope: Any, receive: Any, send: Any) -> None:
        if allowed:
            allowed = {**allowed, "access-control-expose-headers": EXPOSED}
        elif self.origins:
            allowed = {"vary": "Origin"}  # a cache must not give this response to a page of an allowed origin
        added = [(name.encode(), value.encode()) for name, value in allowed.items()]

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self.app(scope, receive, send_with_headers if added else send)


def _headers(pairs: Any) -> dict[str, str]:
    """Return the headers of CORS, the first of each name."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name == b"origin" or name.startswith(b"access-control-"):
            found.setdefault(name.decode(), value.decode("latin-1"))
    return found
