"""A full service refuses at its door."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from raypath.components.serving.middleware.request_limits import (
    HEADERS,
    LoadSheddingMiddleware,
    RequestLimitsMiddleware,
)

Messages = list[dict[str, Any]]


OWN = (b"Content-Security-Policy", b"default-src 'self'")


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [OWN]})
    await send({"type": "http.response.body", "body": b""})


def ask(wait: float, method: str = "POST") -> Messages:
    sent: Messages = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("a refused body is not read")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/predict", "headers": []}
    asyncio.run(LoadSheddingMiddleware(answer, lambda: wait, 3.0)(scope, receive, send))
    return sent


def test_it_is_open_while_work_fits() -> None:
    assert ask(0.0)[0]["status"] == ask(2.9)[0]["status"] == 200
    assert ask(9.0, "GET")[0]["status"] == 200, "health and the page are answered"


def test_what_is_too_much_is_refused_unread_and_told_when_to_come_back() -> None:
    assert ask(3.0)[0]["status"] == 429
    start, body = ask(3.2)
    headers = dict(start["headers"])
    assert (start["status"], headers[b"retry-after"]) == (429, b"4")
    assert headers[b"content-type"] == b"application/problem+json"
    assert json.loads(body["body"])["status"] == 429


def test_every_answer_is_safe_in_a_browser() -> None:
    for start, _ in (ask(0.0), ask(9.0), ask(0.0, "GET")):
        headers = dict(start["headers"])
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert headers[b"referrer-policy"] == b"no-referrer"
        assert headers[b"cache-control"] == b"no-store"
    assert OWN in ask(0.0)[0]["headers"], "what brings its own policy keeps it"
    assert b"content-security-policy" not in dict(ask(0.0)[0]["headers"])
    assert dict(ask(9.0)[0]["headers"])[b"content-security-policy"].startswith(b"default-src 'none'")


def test_as_many_headers_as_may_be_are_let_by() -> None:
    for count, status in ((HEADERS, 200), (HEADERS + 1, 431)):
        sent: Messages = []

        async def send(message: dict[str, Any], sent: Messages = sent) -> None:
            sent.append(message)

        scope = {"type": "http", "path": "/", "query_string": b"", "headers": [(b"a", b"b")] * count}
        asyncio.run(RequestLimitsMiddleware(answer)(scope, None, send))
        assert sent[0]["status"] == status
