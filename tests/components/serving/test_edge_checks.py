"""First checks of a request in Ray's HTTP servers: headers that only Ray reads, and what is rejected at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from raypath.components.serving.middleware.edge import CALLBACK, EdgeMiddleware, _passes, invalid_request


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        (b"x-request-id", b"ok", True),
        (b"x-request-id", b"\xff", False),
        (b"x-request-timeout-seconds", b"1", False),
        (b"x-request-disconnect-disabled", b"1", False),
        *((name, b"1", False) for name in (b"x-session-id", b"x_session_id", b"serve_multiplexed_model_id")),
        (b"x-request-other", b"1", True),
        (b"server", b"1", True),
        (b"accept", b"\xff", True),
    ],
)
def test_headers_that_ray_reads(name: bytes, value: bytes, passes: bool) -> None:
    assert _passes(name, value) is passes


def test_requests_that_are_invalid_whatever_they_ask_for() -> None:
    assert invalid_request({"path": "/a", "headers": [(b"te", b"x")]}) == ""
    for control in ("\x00", "\x1f", "\x7f"):
        assert invalid_request({"path": f"/{control}", "headers": []}) == "the path has control characters"
    assert invalid_request({"path": "/a", "headers": [(b"trailer", b"x")]}) == "trailers are not supported"
    where = "raypath.components.serving.middleware.edge:middlewares"
    assert {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": where} == CALLBACK
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def app(*_: Any) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/\x00", "headers": []}
    asyncio.run(EdgeMiddleware(app)(scope, receive, send))
    body = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "the path has control characters"}
    assert json.loads(sent[1]["body"]) == body
    assert dict(sent[0]["headers"]) == {
        **{b"content-type": b"application/problem+json", b"x-content-type-options": b"nosniff"},
        **{b"content-length": str(len(sent[1]["body"])).encode(), b"connection": b"close"},
    }
    assert sent[0]["status"] == 400
