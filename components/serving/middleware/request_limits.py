"""Request limits and load shedding: header and body size, and 429 when the queue is full."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from raypath.components.serving.api.body import CLOSE
from raypath.components.serving.api.errors import below, problem
from raypath.components.serving.api.pages.pages import SAFE

ADDRESS, HEADERS, HEADER_BYTES = 4_096, 100, 32_768
"""Bytes of path and query, headers, bytes of all headers; HAProxy in front lets twice as many by, and no more."""


_SAFE = [(name.encode(), value.encode()) for name, value in SAFE.items()]


class RequestLimitsMiddleware:
    """ASGI middleware that refuses a request by its address and its headers, before it is routed."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self.app
        if scope["type"] == "http" and (told := _oversized(scope)):
            app = problem(told[0], told[1], CLOSE, below(scope))
        await app(scope, receive, send)


class LoadSheddingMiddleware:
    """ASGI middleware that refuses requests for the model while more waits than may, before anything is done for them.

    wait: seconds of work that wait now. At ten times the load that a replica can answer, reading bodies and keys only
    to refuse them would take the time of those that are answered. Every answer leaves with SAFE headers, unless it has
    its own.
    """

    def __init__(self, app: Any, wait: Callable[[], float], max_queue_seconds: float) -> None:
        self.app, self.wait, self.max_queue_seconds = app, wait, max_queue_seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self.app
        if scope["type"] == "http" and scope["method"] == "POST" and (seconds := self.wait()) >= self.max_queue_seconds:
            told = f"{seconds:.1f} seconds of work are waiting; try again"
            app = problem(429, told, {"retry-after": str(math.ceil(seconds))}, below(scope))

        async def safe(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                message = {**message, "headers": headers + [pair for pair in _SAFE if pair[0] not in there]}
            await send(message)

        await app(scope, receive, safe)


def _oversized(scope: Any) -> tuple[int, str] | None:
    if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > ADDRESS:
        return 414, f"the address is too long; wanted at most {ADDRESS:,} bytes"
    headers = scope["headers"]
    if len(headers) > HEADERS:
        return 431, f"{len(headers):,} headers; wanted at most {HEADERS}"
    if sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        return 431, f"the headers are too large; wanted at most {HEADER_BYTES:,} bytes"
    return None
