"""Limits of a language model's service: keys, quotas, usage, clients that leave or do not read, engines that fail."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from raypath.components.inference.generation.async_engine import EngineFault
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.usage import read_usage
from raypath.components.serving.params import ServeParams
from tests.components.serving.language.chat_server import LIMITS, language_service, served_chat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 8}
LONG = {**ASK, "max_tokens": 200, "stream": True}


def _wait(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def shop(chat_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A service with keys that has short timeouts."""
    keys = tmp_path_factory.mktemp("keys")
    settings = LIMITS.model_copy(update={"request_timeout": 4.0, "log_requests": True})
    service = language_service({"m": chat_folder}, settings, access=str(keys))
    store = KeyStore(keys)
    prices = {"price_per_request": 1.0, "price_per_1k_tokens": 10.0, "price_per_1k_generated": 1_000.0}
    texts = {
        "paying": store.create("paying", ["chat"], **prices)[1],
        "small": store.create("small", ["chat"], quota_tokens=60)[1],
        "slow": store.create("slow", ["chat"], requests_per_minute=1)[1],
        "brisk": store.create("brisk", ["chat"], requests_per_minute=10, tokens_per_minute=120)[1],
        "other": store.create("other", ["chat"], models=("x",))[1],
        "plain": store.create("plain", ["chat"])[1],
    }
    with served_chat(service) as url:
        yield SimpleNamespace(url=url, service=service, keys=texts, folder=keys)


def _ask(shop: SimpleNamespace, key: str, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {shop.keys[key]}"}
    return httpx.post(f"{shop.url}/v1/chat/completions", json={**ASK, **more}, headers=headers, timeout=20.0)


def _users(shop: SimpleNamespace) -> int:
    return len(shop.service.models.main.users)


def test_usage_and_prices(shop: SimpleNamespace) -> None:
    found = [_ask(shop, "paying").json()["usage"], _ask(shop, "paying", n=2).json()["usage"]]
    with httpx.stream(
        "POST", f"{shop.url}/v1/chat/completions", json={**ASK, "stream": True},
        headers={"authorization": f"Bearer {shop.keys['paying']}"},
    ) as reply:  # fmt: skip
        assert len(reply.read()) > 0
    rows: list[Any] = []

    def metered() -> bool:  # the client may have the end of a stream before
        shop.service.auth.meter.flush()
        rows[:] = [each for each in read_usage(shop.folder / "usage") if each.name == "paying"]
        return sum(each.sums.requests for each in rows) == 3

    _wait(metered)
    [row] = rows
    prompt = found[0]["prompt_tokens"]
    assert found[1]["prompt_tokens"] == prompt, "of two responses to one prompt"
    generated = found[0]["completion_tokens"] + found[1]["completion_tokens"] + 8
    assert (row.sums.requests, row.sums.tokens) == (3, 3 * prompt + generated)
    assert (row.sums.generated_tokens, row.sums.cached_tokens) == (generated, 0)
    assert row.sums.price == pytest.approx(3 * 1.0 + 3 * prompt * 0.01 + generated * 1.0)
    assert row.sums.compute_seconds > 0


def test_a_quota_reserves_the_response_and_is_charged_with_what_was_generated(shop: SimpleNamespace) -> None:
    small = next(key for key in KeyStore(shop.folder).list() if key.name == "small")
    assert _ask(shop, "small").json()["usage"]["total_tokens"] == 29
    with shop.service.auth.meter.ledger.state(small.id) as state:
        assert (state.tokens, state.reserved) == (29, 0)
    assert _ask(shop, "small", max_tokens=100).status_code == 200, "a request exceeds it by its own tokens"
    found = _ask(shop, "small")
    assert found.status_code == 429
    assert "tokens are used up" in found.json()["error"]["message"]
    assert int(found.headers["retry-after"]) > 0


def test_a_rate_of_tokens_holds_the_response_until_it_is_known(shop: SimpleNamespace) -> None:
    first = _ask(shop, "brisk", max_tokens=90)
    assert first.headers["x-ratelimit-limit-tokens"] == "120"
    assert first.headers["x-ratelimit-limit-requests"] == "10"
    assert int(first.headers["x-ratelimit-remaining-requests"]) == 9
    used = first.json()["usage"]["total_tokens"]
    brisk = next(key for key in KeyStore(shop.folder).list() if key.name == "brisk")
    with shop.service.auth.meter.ledger.state(brisk.id) as state:
        assert state.tokens_left <= 120 - used
        state.tokens_left, state.tokens_updated = 40.0, time.time()
    found = _ask(shop, "brisk", max_tokens=60)
    assert (found.status_code, found.json()["error"]["type"]) == (429, "rate_limit_error")
    assert "more than 120 tokens a minute" in found.json()["error"]["message"]
    assert int(found.headers["retry-after"]) in range(15, 25)
    assert found.headers["x-ratelimit-remaining-tokens"] in ("40", "41", "42", "43")
    for several in ({"n": 4, "max_tokens": 30}, {"max_tokens": 110}):
        beyond = _ask(shop, "brisk", **several)
        assert (beyond.status_code, beyond.headers["x-should-retry"]) == (429, "false")
        assert "lower max_tokens" in beyond.json()["error"]["message"]
    headers = {"authorization": f"Bearer {shop.keys['brisk']}"}
    body = {"model": "m", "input": "hi", "max_output_tokens": 90, "stream": True}
    assert httpx.post(f"{shop.url}/v1/responses", json=body, headers=headers).status_code == 429, "no stream has begun"
    with shop.service.auth.meter.ledger.state(brisk.id) as state:
        state.tokens_left, state.tokens_updated = -60.0, time.time()
    empty = _ask(shop, "brisk", max_tokens=1)
    assert (empty.status_code, empty.headers["x-ratelimit-remaining-tokens"]) == (429, "0")
    assert empty.headers["x-ratelimit-reset-tokens"].startswith("1m")
    assert int(empty.headers["retry-after"]) in range(28, 32)


def test_rates_and_models_of_a_key(shop: SimpleNamespace) -> None:
    assert [_ask(shop, "slow").status_code for _ in range(2)] == [200, 429]
    assert _ask(shop, "other").status_code == 404


def test_a_client_that_leaves_aborts_its_response(shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = shop.service.models.main.engine.engine
    real = engine.step

    def step() -> Any:
        time.sleep(0.01)  # the tiny model would be done before its client leaves
        return real()

    monkeypatch.setattr(engine, "step", step)
    with httpx.stream(
        "POST", f"{shop.url}/v1/chat/completions", json=LONG,
        headers={"authorization": f"Bearer {shop.keys['plain']}"},
    ) as reply:  # fmt: skip
        lines = reply.iter_lines()  # without a reference it would end, and with it the connection
        next(lines)
        assert _users(shop) == 1
    _wait(lambda: _users(shop) == 0)
    statistics = shop.service.models.main.engine.statistics
    _wait(lambda: statistics().running + statistics().waiting == 0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{shop.url}/v1/chat/completions", json={**LONG, "stream": False}, timeout=0.3,
            headers={"authorization": f"Bearer {shop.keys['plain']}"},
        )  # fmt: skip
    _wait(lambda: _users(shop) == 0)


def test_a_client_that_does_not_read_is_disconnected(shop: SimpleNamespace) -> None:
    place = urlsplit(shop.url)
    body = json.dumps({**LONG, "n": 4, "logprobs": True, "top_logprobs": 20}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n"
    head += f"content-type: application/json\r\nauthorization: Bearer {shop.keys['plain']}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect((place.hostname, place.port))
        client.sendall(head.encode() + body)
        _wait(lambda: _users(shop) > 0)
        _wait(lambda: _users(shop) == 0, 15.0)
        assert _ask(shop, "plain").status_code == 200, "others are served meanwhile"
    assert shop.service.load.open == 0


def test_logs_have_numbers_of_tokens_and_no_text(shop: SimpleNamespace, capfd: pytest.CaptureFixture[str]) -> None:
    messages = [{"role": "user", "content": "a secret"}]
    assert _ask(shop, "plain", messages=messages).status_code == 200
    out = ""

    def logged() -> bool:
        nonlocal out
        out += capfd.readouterr().out
        return '"path": "/v1/chat/completions"' in out and out.endswith("\n")

    _wait(logged)
    line = json.loads(next(line for line in out.splitlines() if '"path": "/v1/chat/completions"' in line))
    assert (line["generated"], line["tokens"], line["model"], line["version"]) == (8, line["tokens"], "m", 1)
    assert line["first_ms"] >= 0
    assert "secret" not in out
    counts = shop.service.metrics.counts
    assert counts["raypath_generated_tokens", ("m", "1", "main")] >= 8


def test_an_engine_that_fails_ends_a_stream_with_an_event(chat_folder: Path) -> None:
    service = language_service({"m": chat_folder})
    engine = service.models.main.engine.engine
    real, steps = engine.step, []

    def step() -> Any:
        steps.append(1)
        if len(steps) == 4:
            raise RuntimeError("out of memory")
        return real()

    engine.step = step
    with served_chat(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(**{**ASK, "stream": True})
        with pytest.raises(openai.APIError, match="the engine of the model failed") as caught:
            list(stream)
        assert "memory" not in str(caught.value), "reasons are for the operator"
        assert client.models.list().data
        with pytest.raises(openai.InternalServerError, match="the engine of the model failed"):
            client.chat.completions.create(**ASK)
    with pytest.raises(EngineFault, match="out of memory"):
        asyncio.run(service.check_health())


def test_a_full_queue_rejects(shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop.service.load, "wait", lambda limit=0: 1_000.0)
    found = _ask(shop, "plain")
    assert found.status_code == 429
    assert int(found.headers["retry-after"]) >= 1_000
    assert found.json()["error"]["type"] == "rate_limit_error"


def test_settings_without_a_meaning_are_rejected() -> None:
    from raypath.components.core.errors import ParamsError
    from raypath.components.serving.params import check_language

    check_language(ServeParams(canary="challenger:5", shadow="challenger", decide=True))
    with pytest.raises(ParamsError, match=r"serve\.log_predictions logs predictions"):
        check_language(ServeParams(log_predictions=0.1))
