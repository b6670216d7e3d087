"""Request logging: ASGI middleware that counts each request, logs it and starts its trace.

It is the outermost middleware, so that rejected requests are logged too. Inner code adds what it knows through
`current_request()`. A log line is JSON on standard output, without texts and keys:

    {"time": "2026-11-24T03:04:33.816Z", "id": "...", "method": "POST", "path": "/predict", "status": 200, "ms": 12.3,
     "texts": 2, "tokens": 31, "model": "topics", "version": 7, "role": "main", "key": "k1"}
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from raypath.components.serving.middleware.edge import REQUEST_ID
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.request_context import RequestContext, request_scope
from raypath.components.serving.observability.tracing import Tracer, finish, trace_id

PROBES = ("/healthz", "/v2/health/live", "/v2/health/ready")
"""Ends of the paths of health checks, sent about every second; recorded only if they get an error."""
ROUTES = frozenset(
    (
        "predict",
        "embeddings",
        "infer",
        "completions",
        "responses",
        "card",
        "models",
        "usage",
        "ready",
        "docs",
        "openapi.json",
    )
)
"""Last segments of known paths; any other path is labelled `other`, so that clients cannot create metric series."""
_HEADER = b"x-request-id"
_SUBJECT = b"x-subject-id"
MAX_SUBJECT = 256
"""Bytes of a subject that count."""
_CLIENT_CLOSED = 499
"""Status of a request whose client disconnected, as in nginx."""


class RequestLogMiddleware:
    """Record all requests to `app`.

    Args:
        log_all: Log every request, not only server errors.
        echo: Return the request id as X-Request-Id; None does so unless Ray Serve does.
        write: Receives each log line; standard output by default.
    """

    def __init__(
        self,
        app: Any,
        metrics: Metrics,
        log_all: bool = False,
        tracer: Tracer | None = None,
        echo: bool | None = None,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.log_all = log_all
        self.tracer = tracer or Tracer()
        self.echo = not _within_serve() if echo is None else echo
        self.write = write or _print

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, path = (
            RequestContext(_id_of(scope["headers"]), perf_counter(), subject=_subject_of(scope["headers"])),
            scope["path"],
        )
        with request_scope(request):
            if path.endswith(PROBES):
                await self._record(request, None, scope, receive, send)
            else:
                with self.tracer.request_span(scope["method"], route_of(path), scope["headers"]) as span:
                    await self._record(request, span, scope, receive, send)

    async def _record(self, request: RequestContext, span: Any, scope: Any, receive: Any, send: Any) -> None:
        status = 0

        async def send_with_id(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.echo:
                    message = {**message, "headers": [*message.get("headers", ()), (_HEADER, request.id.encode())]}
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except BaseException as error:
            closed = isinstance(error, asyncio.CancelledError)
            request.error, status = type(error).__name__, status or (_CLIENT_CLOSED if closed else 500)
            raise
        finally:
            self._finish(request, span, scope, status or 500)

    def _finish(self, request: RequestContext, span: Any, scope: Any, status: int) -> None:
        seconds, path = perf_counter() - request.began, scope["path"]
        failed = status >= 500 or (request.error and status != _CLIENT_CLOSED)
        if status < 400 and not failed and path.endswith(PROBES):
            return
        fields = request.fields()
        who = (request.model, str(request.version or ""), request.role)
        self.metrics.request(route_of(path), status, seconds, who, request.texts, request.tokens)
        finish(span, status, fields, request.error)
        if failed or self.log_all:
            line = {"id": request.id, "method": scope["method"], "path": path[:200], "status": status}
            line |= {"ms": round(seconds * 1000, 2), **fields}
            if span is not None:
                line["trace"] = trace_id(span)
            self.write(json.dumps({"time": _now(), **line}))


def route_of(path: str) -> str:
    """Return the metric label of a path, one of ROUTES or `other`."""
    end = path.rpartition("/")[2]
    return end if end in ROUTES else "other"


def _id_of(headers: Any) -> str:
    """Return the client's request id if it is well-formed, else a new one."""
    for name, value in headers:
        if name == _HEADER and REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return uuid.uuid4().hex


def _subject_of(headers: Any) -> str:
    """Return the client's name of the person whom the request is about; "" without one."""
    found = next((value for name, value in headers if name == _SUBJECT), b"")
    return str(found[:MAX_SUBJECT], "utf-8", "replace").strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _within_serve() -> bool:
    """Return True in a Ray Serve replica, which returns the id by itself."""
    serve: Any = sys.modules.get("ray.serve")
    if serve is None:
        return False
    try:
        serve.get_replica_context()
    except serve.exceptions.RayServeException:
        return False
    return True
