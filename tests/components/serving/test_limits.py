"""Limits and prices of keys, limits of requests, and full queues: each bound, and each answer in full."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raypath.components.serving.metering.holder import AccessError, Key
from raypath.components.serving.metering.ledger import KeyState, Ledger, SharedLedger
from raypath.components.serving.metering.usage import Usage, UsageMeter, UsageTotals, _month
from raypath.components.serving.metering.usage_files import day_of
from raypath.components.serving.middleware.rate_limit import RateLimiter
from raypath.components.serving.middleware.request_limits import LoadSheddingMiddleware, RequestLimitsMiddleware

_NOON = datetime.now(UTC).replace(day=23, hour=12, minute=0, second=0, microsecond=0)
NOON = _NOON.timestamp()
"""Time in the current month, in which a meter begins."""
_END = (_NOON.replace(day=1, hour=0) + timedelta(days=32)).replace(day=1)
END = _END.timestamp()
"""End of that month."""


def _key(**fields: Any) -> Key:
    return Key(id="a1", name="anna", digest="0" * 64, created=datetime.now(UTC), **fields)


@pytest.mark.parametrize(
    ("rate", "share", "state", "now", "left", "wait"),
    [
        (60, 1.0, KeyState(), 5.0, 59.0, 0),
        (60, 0.5, KeyState(), 5.0, 29.0, 0),
        (1, 0.5, KeyState(), 5.0, 0.0, 0),
        (60, 1.0, KeyState(1.0, 5.0), 5.0, 0.0, 0),
        (60, 1.0, KeyState(0.5, 5.0), 5.25, 0.75, 1),
        (60, 1.0, KeyState(0.5, 5.0), 5.5, 0.0, 0),
        (60, 1.0, KeyState(0.0, 5.0), 4.0, 0.0, 1),
        (2, 1.0, KeyState(0.0, 5.0), 5.0, 0.0, 30),
        (2, 0.5, KeyState(0.0, 5.0), 5.0, 0.0, 60),
        (60, 1.0, KeyState(59.5, 5.0), 500.0, 59.0, 0),
        (120_000, 1.0, KeyState(0.0, 5.0), 5.0, 0.0, 1),
        (0, 1.0, KeyState(0.0, 5.0), 5.0, 0.0, 0),
    ],
)
def test_rates(rate: int, share: float, state: KeyState, now: float, left: float, wait: int) -> None:
    if wait:
        with pytest.raises(AccessError) as told:
            RateLimiter(share).acquire(_key(requests_per_minute=rate), state, now)
        assert (told.value.status, told.value.retry_after) == (429, wait)
        assert str(told.value) == told.value.reason == f"more than {rate:,} requests a minute"
    else:
        RateLimiter(share).acquire(_key(requests_per_minute=rate), state, now)
    assert state.requests_left == pytest.approx(left)
    assert state.updated == (now if rate else 5.0)


def test_tokens_are_taken_and_returned() -> None:
    key, state, limiter = _key(tokens_per_minute=600), KeyState(), RateLimiter()
    limiter.acquire(key, state, 5.0)
    limiter.take_tokens(key, state, 500, 5.0)
    assert (state.tokens_left, state.tokens_updated) == (100.0, 5.0)
    with pytest.raises(AccessError, match="more than 600 tokens a minute") as caught:
        limiter.take_tokens(key, state, 150, 6.0)
    assert (caught.value.status, caught.value.retry_after) == (429, 4), "10 a second: 40 are missing"
    limiter.return_tokens(key, state, 460)
    limiter.take_tokens(key, state, 570, 6.0)
    assert state.tokens_left == 0.0
    with pytest.raises(AccessError, match="more than 600 tokens a minute") as caught:
        limiter.acquire(key, state, 6.0)
    assert caught.value.retry_after == 1
    limiter.return_tokens(key, state, -50)
    with pytest.raises(AccessError) as caught:
        limiter.acquire(key, state, 6.0)
    assert caught.value.retry_after == 6, "more was used than taken"
    limiter.return_tokens(key, state, 10_000)
    assert state.tokens_left == 600.0


def test_a_request_beyond_the_rate_by_itself() -> None:
    key, state = _key(tokens_per_minute=600), KeyState()
    with pytest.raises(AccessError, match=r"may have 601 tokens .* has 600 a minute; lower") as caught:
        RateLimiter().take_tokens(key, state, 601, 5.0)
    assert (caught.value.status, caught.value.retry_after) == (429, 0)
    quarter = RateLimiter(0.25)
    quarter.take_tokens(key, state, 600, 5.0)
    with pytest.raises(AccessError) as caught:
        quarter.acquire(key, state, 5.0)
    assert caught.value.retry_after == 181, "of a share: 450 more than its minute has"


@pytest.mark.parametrize(
    ("state", "reset", "left"),
    [
        (KeyState(), "0ms", 600),
        (KeyState(tokens_left=599.0, tokens_updated=9.99), "90ms", 599),
        (KeyState(tokens_left=514.0, tokens_updated=10.0), "8.6s", 514),
        (KeyState(tokens_left=-300.0, tokens_updated=10.0), "1m30s", 0),
    ],
)
def test_rates_as_headers(state: KeyState, reset: str, left: int) -> None:
    found = RateLimiter().headers(_key(tokens_per_minute=600), state, 10.0)
    assert found == {
        "x-ratelimit-limit-tokens": "600", "x-ratelimit-remaining-tokens": str(left),
        "x-ratelimit-reset-tokens": reset,
    }  # fmt: skip
    both = RateLimiter().headers(_key(tokens_per_minute=600, requests_per_minute=60), state, 10.0)
    assert both["x-ratelimit-remaining-requests"] == "60"
    assert RateLimiter().headers(_key(), state, 10.0) == {}


def test_the_meter_settles_a_rate(tmp_path: Path) -> None:
    key, meter, limiter = _key(tokens_per_minute=600, quota_tokens=10_000), UsageMeter(tmp_path, "r"), RateLimiter()
    meter.admit(key, NOON, 40, limiter)
    usage = Usage(reserved=40, rated=True, extend=lambda usage, n: meter.extend(key, usage, n, NOON, limiter))
    usage.reserve(30)
    usage.reserve(25)
    with meter.ledger.state(key.id) as state:
        assert (usage.taken, state.tokens_left, state.reserved) == (30, 570.0, 40)
    usage.reserve(300)
    with pytest.raises(AccessError):
        usage.reserve(601)
    usage.tokens = 120
    meter.record(key, usage, 200, NOON, limiter)
    with meter.ledger.state(key.id) as state:
        assert (state.tokens_left, state.reserved, state.tokens) == (480.0, 0, 120)


def _rejected(meter: UsageMeter, key: Key, now: float = NOON, estimate: int = 0) -> tuple[str, int]:
    with pytest.raises(AccessError) as told:
        meter.admit(key, now, estimate)
    assert (told.value.status, told.value.key) == (429, key)
    return told.value.reason, told.value.retry_after


def test_quotas(tmp_path: Path) -> None:
    meter, key = UsageMeter(tmp_path, "r0", period=600), _key(quota_requests=2, quota_tokens=1_000)
    meter.admit(key, NOON, 300)
    meter.record(key, Usage(900, reserved=300), 200, NOON)
    meter.admit(key, NOON, 100)
    used_up = "this month's 2 requests are used up"
    assert _rejected(meter, key) == (used_up, int(END - NOON))
    more = _key(quota_requests=9, quota_tokens=1_000)
    assert _rejected(meter, more) == (
        "requests that are being processed may use up the 100 tokens left of this month; try again",
        1,
    )
    meter.record(more, Usage(100, reserved=100), 200, NOON)
    assert _rejected(meter, more) == ("this month's 1,000 tokens are used up", int(END - NOON))
    assert _rejected(meter, key, END - 0.5) == (used_up, 1)
    meter.admit(more, END)
    meter.close()


def test_a_reservation_grows_with_the_tokens_of_its_request(tmp_path: Path) -> None:
    meter, key = UsageMeter(tmp_path, "r0", period=600), _key(quota_tokens=1_000)
    meter.admit(key, NOON, 100)
    usage = Usage(reserved=100, extend=lambda usage, tokens: meter.extend(key, usage, tokens))
    usage.count(80)
    assert (usage.tokens, usage.reserved) == (80, 100)
    usage.count(700)
    assert (usage.tokens, usage.reserved) == (700, 700)
    meter.admit(key, NOON, 400)
    with pytest.raises(AccessError) as told:
        Usage(reserved=0, extend=lambda usage, tokens: meter.extend(key, usage, tokens)).count(5)
    what = "requests that are being processed may use up the 1,000 tokens left of this month; try again"
    assert (told.value.reason, told.value.retry_after) == (what, 1)
    meter.close()


def test_what_an_ended_process_reserved_is_free_after_ten_minutes(tmp_path: Path) -> None:
    meter, key = UsageMeter(tmp_path, "r0", period=600), _key(quota_tokens=1_000)
    meter.admit(key, NOON, 1_000)
    for late in (0.0, 600.0):
        assert "being processed" in _rejected(meter, key, NOON + late)[0]
    meter.admit(key, NOON + 600.1)
    meter.close()


def test_the_last_token_of_a_quota_is_reserved_once(tmp_path: Path) -> None:
    meter, key = UsageMeter(tmp_path, "r0", period=600), _key(quota_tokens=1_000)
    meter.admit(key, NOON, 999)
    meter.extend(key, Usage(), 5)
    with pytest.raises(AccessError):
        meter.extend(key, Usage(reserved=4), 5)
    meter.close()


@pytest.mark.parametrize(
    ("status", "tokens", "price", "errors"),
    [(200, 500, 1.5, 0), (399, 500, 1.5, 0), (400, 500, 0.0, 1), (500, 500, 0.0, 1), (504, 500, 1.5, 1),
     (499, 500, 1.5, 1), (504, 0, 0.0, 1)],
)  # fmt: skip
def test_prices(status: int, tokens: int, price: float, errors: int, tmp_path: Path) -> None:
    meter = UsageMeter(tmp_path, "r0", period=600, model="m/1")
    meter.record(_key(price_per_request=0.5, price_per_1k_tokens=2.0), Usage(tokens, 0.25), status, NOON)
    [(kind, sums)] = meter._rows.items()
    assert kind == ("a1", "anna", "m/1", int(NOON // 60), "")
    assert sums == UsageTotals(1, 0, errors, tokens, 0.25, price)
    meter.record_rejected(None, NOON)
    meter.record_rejected(_key(), NOON)
    assert meter._rows["", "", "m/1", int(NOON // 60), ""] == UsageTotals(rejected=1)
    assert meter._rows[kind].rejected == 1
    assert meter._thread is not None
    assert meter._thread.daemon, "it does not keep a process"
    meter.close()


def test_totals_days_and_months() -> None:
    total = UsageTotals(1, 2, 3, 4, 5.0, 6.0)
    total.add(UsageTotals(10, 20, 30, 40, 50.0, 60.0))
    assert total == UsageTotals(11, 22, 33, 44, 55.0, 66.0)
    assert [day_of(int(NOON // 60) + minutes) for minutes in (-721, -720, 719, 720)] == [
        *(f"{_NOON:%Y-%m}-{day}" for day in (22, 23, 23, 24)),
    ]
    assert _month(END - 1)[1] == _month(NOON)[1] == END
    assert str(_month(END)[0]) == f"{_END:%Y-%m-01}"


def test_a_ledger_keeps_each_key_apart(tmp_path: Path) -> None:
    shared = SharedLedger(tmp_path / "limits")
    for ledger in (Ledger(), shared):
        for number, id in enumerate(("a", "b", "a")):
            with ledger.state(id) as state:
                assert state == (KeyState(tokens=1) if number == 2 else KeyState())
                state.tokens += 1
    size = (tmp_path / "limits").stat().st_size
    assert size == 2 * 88, "two records"
    assert (Ledger.shared, shared.shared) == (False, True)
    shared.close()
    shared.close()


async def _ok(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"cache-control", b"max-age=5"), (b"x", b"y")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def _answer(app: Any, **changes: Any) -> tuple[int, dict[str, str], Any]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b""}
    asyncio.run(app({**scope, "headers": [], "root_path": "", "app_root_path": "", **changes}, receive, send))
    start, body = sent[0], sent[1]
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, json.loads(body["body"])


@pytest.mark.parametrize(
    ("changes", "status", "detail"),
    [
        ({}, 200, ""),
        ({"raw_path": b"/" + b"a" * 4_090, "query_string": b"12345"}, 200, ""),
        (
            {"raw_path": b"/" + b"a" * 4_090, "query_string": b"123456"},
            414,
            "the URL is too long; wanted at most 4,096 bytes",
        ),
        ({"headers": [(b"a", b"b")] * 100}, 200, ""),
        ({"headers": [(b"a", b"b")] * 101}, 431, "101 headers; wanted at most 100"),
        ({"headers": [(b"a", b"b" * 32_767)]}, 200, ""),
        ({"headers": [(b"a", b"b" * 32_768)]}, 431, "the headers are too large; wanted at most 32,768 bytes"),
    ],
)
def test_urls_and_headers(changes: dict[str, Any], status: int, detail: str) -> None:
    found, headers, body = _answer(RequestLimitsMiddleware(_ok), **changes)
    assert (found, body.get("detail", "")) == (status, detail)
    assert headers.get("connection") == ("close" if detail else None)


@pytest.mark.parametrize(
    ("seconds", "method", "status", "retry"),
    [(2.9, "POST", 200, None), (3.0, "POST", 429, "3"), (7.2, "POST", 429, "8"), (7.2, "GET", 200, None)],
)
def test_a_full_queue(seconds: float, method: str, status: int, retry: str | None) -> None:
    found, headers, body = _answer(LoadSheddingMiddleware(_ok, lambda: seconds, 3.0), method=method)
    assert (found, headers.get("retry-after")) == (status, retry)
    if retry:
        wanted = f"{seconds:.1f} seconds of work are queued (serve.max_queue_seconds); try again"
        assert body["detail"] == wanted
    else:
        assert (headers["cache-control"], headers["x"]) == ("max-age=5", "y"), "its own are kept"
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
