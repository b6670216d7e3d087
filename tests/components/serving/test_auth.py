"""The middleware, driven as an ASGI server drives it: refusals before the body, limits, counting."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raypath.components.serving.api.route_table import RouteTable
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.ledger import KeyState
from raypath.components.serving.metering.usage import UsageMeter, read_usage
from raypath.components.serving.middleware.auth import AuthMiddleware
from raypath.components.serving.middleware.rate_limit import RateLimiter

ROUTES = RouteTable(["/predict", "/v1/embeddings", "/v2/models/{model}/infer", "/healthz", "/card"])


@dataclass
class Answer:
    """What came back, and whether the body was asked for."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    read: bool = False

    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)


@dataclass
class App:
    """Answers with the status that was asked for; one token for each byte of the body."""

    status: int = 200
    scopes: list[Any] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await asyncio.sleep(0)
        body = (await receive())["body"]
        if "raypath.usage" in scope:
            scope["raypath.usage"].tokens = len(body)
            scope["raypath.usage"].compute_seconds = 0.5
        if self.status == 0:
            raise RuntimeError("a defect")
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


async def _ask(
    app: Any, *headers: tuple[str, str], path: str = "/predict", body: bytes = b"12345", **more: Any
) -> Answer:
    answer = Answer()

    async def receive() -> Any:
        answer.read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message["body"]

    sent = [(name.lower().encode(), value.encode()) for name, value in headers]
    await app({"type": "http", "path": path, "headers": sent, **more}, receive, send)
    return answer


def ask(app: Any, text: str = "", **more: Any) -> Answer:
    """One request with a key."""
    headers = [("Authorization", f"Bearer {text}")] if text else []
    return asyncio.run(_ask(app, *headers, **more))


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path)


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[UsageMeter]:
    made = UsageMeter(tmp_path / "usage", "r0", period=600, model="reviews/1")
    yield made
    made.close()


def test_refusals_have_the_form_that_clients_of_each_interface_read(tmp_path: Path, meter: UsageMeter) -> None:
    access = AuthMiddleware(App(), tmp_path, meter, ROUTES)
    said = "an API key is required: `Authorization: Bearer KEY` or `X-API-Key: KEY`"
    assert ask(access, path="/v1/embeddings").problem()["error"]["message"] == said
    assert ask(access, path="/v2/models/m/infer").problem()["error"] == said
    assert "error" not in ask(access, path="/predict").problem()


def test_no_key_is_401_and_the_body_stays_unread(tmp_path: Path, store: KeyStore, meter: UsageMeter) -> None:
    _, text = store.create("anna")
    app = App()
    access = AuthMiddleware(app, tmp_path, meter, ROUTES)
    for answer in (ask(access), ask(access, "rp_x_y"), ask(access, text + "x"), ask(access, path="/none")):
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert not answer.read
        assert answer.problem() | {"detail": ""} == {
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
            "detail": "",
        }
    assert ask(access, path="/healthz").status == 200
    assert len(app.scopes) == 1
    assert "raypath.key" not in app.scopes[0]


def test_both_headers_work_and_the_key_goes_no_further(tmp_path: Path, store: KeyStore, meter: UsageMeter) -> None:
    key, text = store.create("anna")
    app = App()
    access = AuthMiddleware(app, tmp_path, meter, ROUTES)
    for headers in (
        [("Authorization", f"Bearer {text}")],
        [("authorization", f"bearer  {text}")],
        [("X-API-Key", text)],
        [("Authorization", "Basic eA=="), ("X-API-Key", text)],
    ):
        assert asyncio.run(_ask(access, *headers, ("accept", "*/*"))).status == 200
    for scope in app.scopes:
        assert scope["raypath.key"] == key.id
        assert scope["headers"] == [(b"accept", b"*/*")]


def test_scopes_go_by_path(tmp_path: Path, store: KeyStore, meter: UsageMeter) -> None:
    _, text = store.create("anna", ["embed"])
    access = AuthMiddleware(App(), tmp_path, meter, ROUTES)
    refused = ask(access, text)
    assert (refused.status, refused.read, refused.problem()["detail"]) == (403, False, "this key is not for predict")
    assert ask(access, text, path="/v1/embeddings").status == 200
    assert ask(access, text, path="/reviews/v1/embeddings", root_path="/reviews").status == 200
    assert ask(access, text, path="/reviews/healthz").status == 403


def test_rate_limit_and_its_share(tmp_path: Path, store: KeyStore, meter: UsageMeter) -> None:
    _, text = store.create("anna", requests_per_minute=6)
    now = [1_000_000.0]
    access = AuthMiddleware(App(), tmp_path, meter, ROUTES, clock=lambda: now[0])
    assert [ask(access, text).status for _ in range(7)] == [200] * 6 + [429]
    refused = ask(access, text)
    assert (refused.headers["retry-after"], refused.read) == ("10", False)
    assert refused.problem()["title"] == "Too Many Requests"
    now[0] += 10
    assert [ask(access, text).status for _ in range(2)] == [200, 429]
    now[0] += 86_400
    assert [ask(access, text).status for _ in range(7)] == [200] * 6 + [429], "idle time fills it once, not beyond"
    _, text = store.create("cara", requests_per_minute=6)
    half = AuthMiddleware(App(), tmp_path, meter, ROUTES, share=0.5, clock=lambda: now[0])
    assert [ask(half, text).status for _ in range(4)] == [200] * 3 + [429]
    assert ask(half, text).headers["retry-after"] == "20"
    now[0] -= 3_600
    assert ask(half, text).headers["retry-after"] == "20", "a clock that is set back takes nothing away"
    key, _ = store.create("bert", requests_per_minute=1)
    RateLimiter(0.1).acquire(key, KeyState(), 0.0)


def test_quotas_hold_over_a_restart(tmp_path: Path, store: KeyStore) -> None:
    _, few = store.create("anna", quota_requests=3)
    _, short = store.create("bert", quota_tokens=10)

    def begin() -> tuple[AuthMiddleware, UsageMeter]:
        meter = UsageMeter(tmp_path / "usage", "r0", period=600)
        return AuthMiddleware(App(), tmp_path, meter, ROUTES), meter

    access, meter = begin()
    assert [ask(access, few).status for _ in range(2)] == [200, 200]
    assert ask(access, short, body=b"123456789").status == 200
    assert meter.close()
    access, meter = begin()
    assert [ask(access, few).status for _ in range(2)] == [200, 429]
    assert [ask(access, short).status for _ in range(2)] == [200, 429]
    refused = ask(access, short)
    wait = int(refused.headers["retry-after"])
    after = datetime.fromtimestamp(time.time() + wait, UTC)
    assert (after.day, after.hour) == (1, 0)
    assert refused.problem()["detail"] == "this month's 10 tokens are used up"
    assert meter.close()


def test_a_quota_counts_requests_under_way(tmp_path: Path, store: KeyStore, meter: UsageMeter) -> None:
    _, text = store.create("anna", quota_requests=5)
    access = AuthMiddleware(App(), tmp_path, meter, ROUTES)

    async def many() -> list[int]:
        answers = await asyncio.gather(*(_ask(access, ("X-API-Key", text)) for _ in range(20)))
        return sorted(answer.status for answer in answers)

    assert asyncio.run(many()) == [200] * 5 + [429] * 15


def test_a_new_month_begins_anew(tmp_path: Path, store: KeyStore, meter: UsageMeter) -> None:
    _, text = store.create("anna", quota_requests=1)
    now = [time.time()]
    access = AuthMiddleware(App(), tmp_path, meter, ROUTES, clock=lambda: now[0])
    assert [ask(access, text).status for _ in range(2)] == [200, 429]
    now[0] += 32 * 86_400
    assert [ask(access, text).status for _ in range(2)] == [200, 429]


def test_a_revoked_key_is_refused_at_the_next_look(tmp_path: Path, store: KeyStore, meter: UsageMeter) -> None:
    _, text = store.create("anna")
    access = AuthMiddleware(App(), tmp_path, meter, ROUTES)
    assert ask(access, text).status == 200
    KeyStore(tmp_path).revoke("anna")
    access.keys._checked_at = float("-inf")
    refused = ask(access, text)
    assert (refused.status, refused.problem()["detail"]) == (401, "this key is revoked")


def test_ten_thousand_requests_are_counted_exactly(tmp_path: Path, store: KeyStore) -> None:
    _, text = store.create("anna", price_per_request=1.0, price_per_1k_tokens=2.0)
    meter = UsageMeter(tmp_path / "usage", "r0", period=0.02)
    access = AuthMiddleware(App(), tmp_path, meter, ROUTES)

    async def client() -> None:
        for _ in range(100):
            assert (await _ask(access, ("X-API-Key", text))).status == 200

    async def all_clients() -> None:
        await asyncio.gather(*(client() for _ in range(100)))

    asyncio.run(all_clients())
    assert meter.close()
    (row,) = read_usage(tmp_path / "usage")
    assert (row.sums.requests, row.sums.tokens, row.sums.errors) == (10_000, 50_000, 0)
    assert row.sums.compute_seconds == pytest.approx(5_000)
    assert row.sums.price == pytest.approx(10_000 + 100)


def test_errors_and_refusals_are_counted_and_cost_nothing(tmp_path: Path, store: KeyStore, meter: UsageMeter) -> None:
    _, text = store.create("anna", ["predict"], price_per_request=1.0)
    assert ask(AuthMiddleware(App(422), tmp_path, meter, ROUTES), text).status == 422
    with pytest.raises(RuntimeError):
        ask(AuthMiddleware(App(0), tmp_path, meter, ROUTES), text)
    ask(AuthMiddleware(App(), tmp_path, meter, ROUTES), "rp_x_y")
    assert ask(AuthMiddleware(App(), tmp_path, meter, ROUTES), text, path="/v1/embeddings").status == 403
    meter.flush()
    nobody, anna = read_usage(tmp_path / "usage")
    assert (nobody.what, nobody.sums.rejected, nobody.sums.requests) == ("", 1, 0)
    assert (anna.name, anna.sums.requests, anna.sums.errors, anna.sums.price) == ("anna", 2, 2, 0.0)
    assert anna.sums.rejected == 1, "its holder is known"


def test_no_log_has_a_key_or_a_text(
    tmp_path: Path,
    store: KeyStore,
    meter: UsageMeter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    key, text = store.create("anna")
    access = AuthMiddleware(App(), tmp_path, meter, ROUTES)
    ask(access, text, body=b"private words")
    refused = ask(access, "rp_guessed_secretly", body=b"private words")
    monkeypatch.setattr("raypath.components.serving.metering.usage.write_rows", _full)
    assert not meter.flush()
    monkeypatch.undo()
    assert "stays queued" in caplog.text
    for private in (text, text.split("_", 2)[2], key.digest, "private", "secretly"):
        assert private not in caplog.text
        assert private not in refused.body.decode()
        assert private not in repr(key) + repr(store) + repr(access)


def _full(*args: Any) -> None:
    raise OSError(28, "No space left on device")


def test_websockets_are_closed_and_lifespan_passes(tmp_path: Path, meter: UsageMeter) -> None:
    sent: list[Any] = []
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def send(message: Any) -> None:
        sent.append(message)

    async def both() -> None:
        access = AuthMiddleware(app, tmp_path, meter, ROUTES)
        await access({"type": "lifespan"}, None, send)
        await access({"type": "websocket", "path": "/healthz"}, None, send)

    asyncio.run(both())
    assert seen == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_replica_grants_its_share_of_those_that_run_now(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from raypath.components.serving.replica import rate_share as shares

    spec: Any = SimpleNamespace(name="m", max_replicas=4)
    answers = iter([1, 3, OSError("no controller"), 0, 0])
    seen: list[float] = []
    rates = RateLimiter(0.25)

    def running(name: str) -> int:
        seen.append(rates.share)
        if isinstance(now := next(answers), Exception):
            raise now
        return now

    async def some() -> None:
        task = asyncio.create_task(shares.update_share(rates, spec))
        while len(seen) < 5:
            await asyncio.sleep(0.01)
        task.cancel()

    monkeypatch.setattr(shares, "running_replicas", running)
    monkeypatch.setattr(shares, "POLL_SECONDS", 0.05)
    asyncio.run(asyncio.wait_for(some(), 10))
    assert seen == [0.25, 1.0, 1 / 3, 0.25, 0.25]
