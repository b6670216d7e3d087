"""Request limits and load shedding: paths, header and body size, and 429 when the queue is full."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from raypath.components.serving.api.body import CLOSE
from raypath.components.serving.api.errors import application_path, problem
from raypath.components.serving.api.pages.pages import SAFE
from raypath.components.serving.middleware.edge import invalid_request

URL_BYTES, HEADERS, HEADER_BYTES = 4_096, 100, 32_768
"""Bytes of path and query, number of headers, bytes of all headers. HAProxy allows twice as many."""

_SAFE = [(name.encode(), value.encode()) for name, value in SAFE.items()]


class RequestLimitsMiddleware:
    """Reject a request with an invalid or oversized URL or oversized headers, before its key is read."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self.app
        if scope["type"] == "http" and (error := _invalid(scope)):
            app = problem(*error, CLOSE, application_path(scope))
        await app(scope, receive, send)


class LoadSheddingMiddleware:
    """Reject POST requests with 429 while the queue is full, and add security headers to every response.

    Rejecting before authentication and before the body is read keeps an overloaded replica responsive: at ten times its
    capacity, parsing requests only to reject them would take the time of those that are served.

    queue_seconds: Returns the queued work in seconds.
    """

    def __init__(self, app: Any, queue_seconds: Callable[[], float], max_queue_seconds: float) -> None:
        self.app, self.queue_seconds, self.max_queue_seconds = app, queue_seconds, max_queue_seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self.app
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and (seconds := self.queue_seconds()) >= self.max_queue_seconds
        ):
            detail = f"{seconds:.1f} seconds of work are queued (serve.max_queue_seconds); try again"
            app = problem(429, detail, {"retry-after": str(math.ceil(seconds))}, application_path(scope))

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                message = {**message, "headers": headers + [pair for pair in _SAFE if pair[0] not in present]}
            await send(message)

        await app(scope, receive, send_with_headers)


def _invalid(scope: Any) -> tuple[int, str] | None:
    if detail := invalid_request(scope):
        return 400, detail
    if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > URL_BYTES:
        return 414, f"the URL is too long; wanted at most {URL_BYTES:,} bytes"
    headers = scope["headers"]
    if len(headers) > HEADERS:
        return 431, f"{len(headers):,} headers; wanted at most {HEADERS}"
    if sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        return 431, f"the headers are too large; wanted at most {HEADER_BYTES:,} bytes"
    return None
