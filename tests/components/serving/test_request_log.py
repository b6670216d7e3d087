"""What is seen of a request from outside: its id, a line of the log, the counts, and never a text or a key."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypath.components.serving.api.route_table import RouteTable
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.usage import UsageMeter
from raypath.components.serving.middleware.auth import AuthMiddleware
from raypath.components.serving.middleware.request_log import RequestLogMiddleware, route_of
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.request_context import RequestContext, current_request, detached_context


class App:
    """Answers as it is told to, as version 7 of topics with 3 tokens for each text."""

    def __init__(self, status: int = 200, error: BaseException | None = None, pause: float = 0.0) -> None:
        self.status, self.error, self.pause = status, error, pause

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(self.pause)
        current_request().served_by("topics", 7, "canary")
        current_request().texts, current_request().tokens = 2, 6
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"ok"})


def ask(app: Any, path: str = "/predict", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """The first message that comes back."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"text": "a secret"}', "more_body": False}

    async def main() -> None:
        await app({"type": "http", "method": "POST", "path": path, "headers": list(headers)}, receive, send)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(main())
    found: dict[str, Any] = sent[0]
    return found


def observed(app: Any, log_all: bool = True, **more: Any) -> tuple[RequestLogMiddleware, list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    return RequestLogMiddleware(
        app, Metrics("s"), log_all, write=lambda line: lines.append(json.loads(line)), **more
    ), lines


def id_of(message: dict[str, Any]) -> list[bytes]:
    return [value for name, value in message["headers"] if name == b"x-request-id"]


def test_a_line_tells_what_happened() -> None:
    app, lines = observed(App(pause=0.01))
    reply = ask(app, "/models/topics/predict", (b"x-request-id", b"My.id_1-2"))
    (line,) = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert 10 <= line.pop("ms") < 1_000
    assert line == {
        "id": "My.id_1-2", "method": "POST", "path": "/models/topics/predict", "status": 200,
        "texts": 2, "tokens": 6, "model": "topics", "version": 7, "role": "canary",
    }  # fmt: skip
    assert id_of(reply) == [b"My.id_1-2"]
    assert (b"a", b"b") in reply["headers"]


@pytest.mark.parametrize("given", [b"", b"x" * 65, b"a b", b"a\nb", "é".encode(), b'"', b"a;b"])
def test_an_id_that_is_not_sane_is_replaced(given: bytes) -> None:
    app, lines = observed(App())
    (made,) = id_of(ask(app, "/predict", (b"x-request-id", given)))
    assert re.fullmatch(rb"[0-9a-f]{32}", made)
    assert lines[0]["id"] == made.decode()
    assert id_of(ask(app)) != [made], "each its own"


def test_errors_are_always_logged_and_other_requests_where_asked_for() -> None:
    for status, wanted in ((200, 0), (404, 0), (429, 0), (500, 1), (503, 1)):
        app, lines = observed(App(status), log_all=False)
        ask(app)
        assert [line["status"] for line in lines] == [status] * wanted
        app, lines = observed(App(status))
        ask(app)
        assert [line["status"] for line in lines] == [status]


def test_a_defect_is_told_by_its_kind_alone_and_raised() -> None:
    app, lines = observed(App(error=ValueError("a secret")), log_all=False)
    with pytest.raises(ValueError, match="a secret"):
        ask(app)
    assert (lines[0]["status"], lines[0]["error"]) == (500, "ValueError")
    assert "secret" not in json.dumps(lines)
    assert app.metrics.counts["raypath_requests", ("predict", "500", "topics", "7", "canary")] == 1


def test_a_client_that_left_is_no_error_of_the_server() -> None:
    app, lines = observed(App(pause=10), log_all=False)

    async def main() -> None:
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
        task = asyncio.create_task(app(scope, None, None))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert lines == []
    assert app.metrics.counts == {("raypath_requests", ("predict", "499", "", "", "")): 1}


def test_counts_are_by_route_status_and_version_and_health_is_not_among_them() -> None:
    app, lines = observed(App())
    for path in ("/predict", "/models/m/predict", "/v1/embeddings", "/healthz", "/v2/health/ready", "/wp-login.php"):
        ask(app, path)
    counts = app.metrics.counts
    requests = {labels: n for (name, labels), n in counts.items() if name == "raypath_requests"}
    who = ("topics", "7", "canary")
    assert requests == {("predict", "200", *who): 2, ("embeddings", "200", *who): 1, ("other", "200", *who): 1}
    assert counts["raypath_request_tokens", who] == 24
    assert counts["raypath_request_texts", who] == 8
    assert len(lines) == 4
    sick, lines = observed(App(503), log_all=False)
    ask(sick, "/healthz")
    assert [line["path"] for line in lines] == ["/healthz"]


def test_paths_that_somebody_makes_up_make_no_series_and_no_long_lines() -> None:
    app, lines = observed(App(404))
    for n in range(50):
        ask(app, f"/x{n}\n\x1b[31m" + "y" * 5_000)
    assert len([name for name, _ in app.metrics.counts if name == "raypath_requests"]) == 1
    assert all(len(line["path"]) == 200 for line in lines)
    assert {route_of(path) for path in ("/", "/a/b", "/predict/", "/predict")} == {"other", "predict"}


def test_requests_side_by_side_do_not_mix_and_work_of_the_house_is_nobodys() -> None:
    found: list[RequestContext] = []

    async def house() -> None:
        current_request().tokens = 1_000
        await asyncio.sleep(0)

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        mine = current_request()
        task = asyncio.create_task(house(), context=detached_context())
        await asyncio.sleep(0.01)
        current_request().tokens = len(scope["path"])
        found.append(mine)
        await task
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    app, lines = observed(inner)

    async def main() -> None:
        async def send(message: Any) -> None:
            pass

        paths = ["/" + "p" * n for n in range(1, 30)]
        scopes = [{"type": "http", "method": "GET", "path": path, "headers": []} for path in paths]
        await asyncio.gather(*(app(scope, None, send) for scope in scopes))
        assert current_request() is not current_request(), "nothing is left behind"

    asyncio.run(main())
    assert all(line["tokens"] == len(line["path"]) for line in lines)
    assert len({line["id"] for line in lines}) == len(found) == 29


def test_what_is_behind_keys_is_seen_and_the_key_is_not(tmp_path: Path) -> None:
    key, secret = KeyStore(tmp_path).create("ann", scopes=("predict",))
    meter = UsageMeter(tmp_path / "usage", "r")
    app, lines = observed(AuthMiddleware(App(), tmp_path, meter, RouteTable(["/predict"])))
    try:
        assert ask(app, "/predict", (b"authorization", b"Bearer " + secret.encode()))["status"] == 200
        assert ask(app, "/predict", (b"x-api-key", b"rp_wrong"))["status"] == 401
    finally:
        meter.close()
    assert [line["status"] for line in lines] == [200, 401]
    assert "model" not in lines[1]
    assert not [word for word in (secret, "rp_wrong", "a secret") if word in json.dumps(lines)]
    assert key.id not in ("", secret)


def test_it_prints_a_line_and_passes_other_protocols_on(capfd: pytest.CaptureFixture[str]) -> None:
    ask(RequestLogMiddleware(App(), Metrics("s"), log_all=True))
    assert json.loads(capfd.readouterr().out)["tokens"] == 6
    other: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        other.append(scope["type"])

    asyncio.run(RequestLogMiddleware(inner, Metrics("s"))({"type": "lifespan"}, None, None))
    assert other == ["lifespan"]


def test_within_serve_the_id_is_left_to_serve() -> None:
    app, lines = observed(App(), echo=False)
    assert id_of(ask(app, "/predict", (b"x-request-id", b"abc"))) == []
    assert lines[0]["id"] == "abc"


@pytest.mark.timing
def test_it_costs_microseconds() -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        current_request().served_by("m", 1)
        current_request().tokens = 3
        await send(start)
        await send(body)

    async def send(message: Any) -> None:
        pass

    async def many(app: Callable[..., Any]) -> float:
        began = time.perf_counter()
        for _ in range(2_000):
            await app(scope, None, send)
        return (time.perf_counter() - began) / 2_000

    start: Any = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
    body = {"type": "http.response.body", "body": b"ok"}
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [(b"content-type", b"a")] * 5}
    app = RequestLogMiddleware(bare, Metrics("m"))
    cost = min(asyncio.run(many(app)) for _ in range(5)) - min(asyncio.run(many(bare)) for _ in range(5))
    assert cost < 200e-6, f"{cost * 1e6:.0f} us"
