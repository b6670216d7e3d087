"""What is seen of a request from outside: plain ASGI middleware that counts it, logs it and begins its trace.

It goes around everything else, so that refused requests are seen too. The application tells what it knows of the one
under way through `current_request()`. A line of the log is JSON on standard output, and tells no text and no key:

    {"time": "2026-11-24T03:04:33.816Z", "id": "...", "method": "POST", "path": "/predict", "status": 200, "ms": 12.3,
     "texts": 2, "tokens": 31, "model": "topics", "version": 7, "role": "main", "key": "k1"}
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from raypath.components.serving.observability import tracing
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.request_context import RequestContext, _current

QUIET = ("/healthz", "/v2/health/live", "/v2/health/ready")
"""Asked every second or so by machines; seen only when they fail."""
ROUTES = frozenset({"predict", "embeddings", "infer", "card", "models", "ready", "docs", "openapi.json"})
"""Ends of paths that are told apart; any other is `other`, for who invents paths invents no series."""
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADER = b"x-request-id"
_GONE = 499
"""Status of a request whose client left before the answer, as nginx has it."""


class RequestLogMiddleware:
    """Sees all requests to `app`.

    metrics: where they are counted. everything: log each request, not only those that ended in an error of the server.
    echo: return the id as X-Request-Id; None does so where Ray Serve does not. write: takes a line.
    """

    def __init__(
        self,
        app: Any,
        metrics: Metrics,
        everything: bool = False,
        echo: bool | None = None,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.everything = everything
        self.echo = not _within_serve() if echo is None else echo
        self.write = write or _print

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        mine = RequestContext(_id_of(scope["headers"]), perf_counter())
        before, path = _current.set(mine), scope["path"]
        try:
            if path.endswith(QUIET):
                await self._seen(mine, None, scope, receive, send)
            else:
                with tracing.request_span(scope["method"], route_of(path), scope["headers"]) as span:
                    await self._seen(mine, span, scope, receive, send)
        finally:
            _current.reset(before)

    async def _seen(self, mine: RequestContext, span: Any, scope: Any, receive: Any, send: Any) -> None:
        status = 0

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.echo:
                    message = {**message, "headers": [*message.get("headers", ()), (_HEADER, mine.id.encode())]}
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except BaseException as error:
            gone = isinstance(error, asyncio.CancelledError)
            mine.error, status = type(error).__name__, status or (_GONE if gone else 500)
            raise
        finally:
            self._note(mine, span, scope, status or 500)

    def _note(self, mine: RequestContext, span: Any, scope: Any, status: int) -> None:
        """Once it is over."""
        seconds, path = perf_counter() - mine.began, scope["path"]
        failed = status >= 500 or (mine.error and status != _GONE)
        if not failed and path.endswith(QUIET):
            return
        told = mine.told()
        who = (mine.model, str(mine.version or ""), mine.role)
        self.metrics.request(route_of(path), status, seconds, who, mine.texts, mine.tokens)
        tracing.close(span, status, told, mine.error)
        if failed or self.everything:
            line = {"id": mine.id, "method": scope["method"], "path": path[:200], "status": status}
            line |= {"ms": round(seconds * 1000, 2), **told}
            if span is not None:
                line["trace"] = tracing.trace_id(span)
            self.write(json.dumps({"time": _now(), **line}))


def route_of(path: str) -> str:
    """What kind of path it is, one of few."""
    end = path.rpartition("/")[2]
    return end if end in ROUTES else "other"


def _id_of(headers: Any) -> str:
    """The client's own id where it is a sane one, else a new one."""
    for name, value in headers:
        if name == _HEADER and _ID.fullmatch(value):
            return str(value, "ascii")
    return uuid.uuid4().hex


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _within_serve() -> bool:
    """Whether this is a replica of Ray Serve, which returns the id by itself, sane or not."""
    serve: Any = sys.modules.get("ray.serve")
    if serve is None:
        return False
    try:
        serve.get_replica_context()
    except serve.exceptions.RayServeException:
        return False
    return True
