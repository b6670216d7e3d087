"""One client takes neither the service from others nor more than its quota and its rate allow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from raypath.components.core.artifacts import Model
from raypath.components.core.columns import Column
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.usage import UsageTotals, read_usage
from raypath.components.serving.replica.tokenizing import INLINE_CHARACTERS, QueueFull, TokenizerThread
from tests.components.serving.server import LIMITS, served, service_of
from tests.security.raw import JSON, answer, ask, connect, head, post, status
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
LONG = {"text": ["a lovely cup of tea " * 20] * 10}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("m"))


@contextmanager
def running(model: Model, access: Path, **settings: Any) -> Iterator[str]:
    """A service of a home; its usage is on disk when the block ends."""
    service = service_of({"m": model}, LIMITS.model_copy(update=settings), access=str(access))
    try:
        with served(service) as url:
            yield url
    finally:
        service.auth.meter.close()


def used(access: Path, name: str) -> UsageTotals:
    [found] = [row.sums for row in read_usage(access / "usage") if row.name == name]
    return found


def test_bodies_that_never_end_leave_room_for_others(model: Model, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    greedy, other = keys.create("greedy")[1], keys.create("other")[1]
    endless = head("POST", "/predict", greedy, JSON + b"content-length: 90000\r\n") + b'\r\n{"text": "'
    with running(model, tmp_path, max_ongoing=16, body_timeout=2.0) as url, ExitStack() as stack:
        lines = [stack.enter_context(connect(url)) for _ in range(16)]
        for line in lines:
            line.sendall(endless)
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            whole = pool.submit(ask, url, post("/predict", {"text": "tea"}, other))
            found = sorted(pool.map(lambda line: status(answer(line)), lines))
            assert whole.result() == 200
        assert found == [408] * 4 + [429] * 12, "a quarter of what a replica takes"
        assert time.monotonic() - began < 10
        assert ask(url, post("/predict", {"text": "tea"}, greedy)) == 200, "the bodies no longer count"


def test_a_key_has_half_of_a_replica(model: Model, tmp_path: Path) -> None:
    text = KeyStore(tmp_path).create("greedy")[1]

    async def many(url: str) -> list[int]:
        async with httpx.AsyncClient(headers={"x-api-key": text}, timeout=30) as client:
            replies = [client.post(url + "/predict", json={"text": f"tea {n} " * 30}) for n in range(40)]
            return [reply.status_code for reply in await asyncio.gather(*replies)]

    with running(model, tmp_path, max_ongoing_per_key=3) as url:
        found = asyncio.run(many(url))
    assert set(found) == {200, 429}
    assert used(tmp_path, "greedy").rejected == found.count(429)


def test_concurrent_requests_exceed_a_quota_by_one_of_them(model: Model, tmp_path: Path) -> None:
    text = KeyStore(tmp_path).create("small", quota_tokens=100)[1]
    with running(model, tmp_path) as url, ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: ask(url, post("/predict", LONG, text)), range(20)))
        assert found.count(200) == 1
        assert set(found) == {200, 429}
        assert ask(url, post("/predict", {"text": "tea"}, text)) == 429
    assert used(tmp_path, "small").tokens >= 100, "those of the one"

    text = KeyStore(tmp_path).create("chunked", quota_tokens=100)[1]
    body = b'{"text": ["%s"]}' % (b"tea " * 100)
    chunked = head("POST", "/predict", text, JSON + b"transfer-encoding: chunked\r\n")
    chunked += b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with running(model, tmp_path) as url, ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda _: ask(url, chunked), range(20))).count(200) <= 4
    assert used(tmp_path, "chunked").tokens < 200


def test_rates_and_quotas_hold_for_all_services_of_a_home(model: Model, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    rated = keys.create("rated", requests_per_minute=2)[1]
    counted, sized = keys.create("counted", quota_requests=5)[1], keys.create("sized", quota_tokens=40)[1]
    with running(model, tmp_path) as one, running(model, tmp_path) as two:
        for text, most in ((rated, 2), (counted, 5), (sized, 20)):
            found = [ask(url, post("/predict", {"text": "tea"}, text)) for url in (one, two) * 10]
            assert 200 in found
            assert found.count(200) <= most, found
            assert ask(one, post("/predict", {"text": "tea"}, text)) == 429
            assert ask(two, post("/predict", {"text": "tea"}, text)) == 429
    assert used(tmp_path, "sized").tokens < 40 + 10


def test_work_that_runs_out_of_time_is_billed(model: Model, tmp_path: Path) -> None:
    text = KeyStore(tmp_path).create("slow", price_per_1k_tokens=1.0)[1]
    with running(model, tmp_path, request_timeout=0.001) as url:
        found = [ask(url, post("/predict", LONG, text)) for _ in range(4)]
    assert 504 in found
    sums = used(tmp_path, "slow")
    assert sums.errors == found.count(504)
    assert sums.tokens > 0
    assert sums.price == pytest.approx(sums.tokens / 1_000)


def test_compute_seconds_are_those_that_passed(model: Model, tmp_path: Path) -> None:
    """They were guessed from the recent throughput, which a batch on a busy machine, or a first one, makes very low."""
    text = KeyStore(tmp_path).create("anna")[1]
    service = service_of({"m": model}, LIMITS, access=str(tmp_path))
    began = time.monotonic()
    with served(service) as url:
        assert ask(url, post("/predict", {"text": "tea"}, text)) == 200
        for number in range(5):
            service.batcher.speed = 10.0
            body = {"text": [f"{number} {m} tea" * 9 for m in range(50)]}
            assert ask(url, post("/predict", body, text)) == 200
        passed = time.monotonic() - began
    service.auth.meter.close()
    assert 0 < used(tmp_path, "anna").compute_seconds < 2 * passed


class Slow:
    """A tokenizer that takes 0.2 s a request."""

    def encode(self, inputs: Any) -> list[list[int]]:
        time.sleep(0.2)
        return [[1] for _ in inputs]

    def special_tokens(self) -> Any:
        raise NotImplementedError


def test_tokenization_counts_as_waiting_work() -> None:
    async def scene() -> None:
        thread, texts = TokenizerThread(0.5), ["x" * INLINE_CHARACTERS]
        await thread.encode(Slow(), texts)
        assert thread.wait() == 0
        waiting = [asyncio.create_task(thread.encode(Slow(), texts)) for _ in range(10)]
        await asyncio.sleep(0.05)
        assert thread.wait() > 0.3, "load shedding sees it"
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(each, QueueFull) for each in found) >= 5
        left = asyncio.create_task(thread.encode(Slow(), texts))
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.sleep(0.05)
        assert thread.wait() > 0, "work that has begun goes on"
        await asyncio.sleep(0.4)
        assert thread.wait() == 0

    asyncio.run(scene())


def test_the_reservation_covers_values_of_one_byte(tmp_path: Path) -> None:
    """A value of a column is rendered with the column's name, which a tensor sends once for all rows."""
    name = "a lovely cup of tea or a broken box"
    columns = (Column(name=name, kind="boolean", stored="input.x"),)
    model = tiny_classifier(tmp_path / "m", columns=columns, form="fields")
    text = KeyStore(tmp_path).create("small", quota_tokens=100_000)[1]
    tensor = {"name": name, "datatype": "BOOL", "shape": [60], "data": [True] * 60}
    request = post("/v2/models/m/infer", {"inputs": [tensor]}, text)
    service = service_of({"m": model}, LIMITS.model_copy(update={"max_items": 60}), access=str(tmp_path))
    with served(service) as url:
        assert ask(url, request) == 200
        length = str(len(request.partition(b"\r\n\r\n")[2])).encode()
        estimate = service.auth._estimate("predict", [(b"content-length", length)])
    service.auth.meter.close()
    tokens = used(tmp_path, "small").tokens
    assert int(length) < tokens <= estimate


def test_a_quota_holds_for_a_model_that_is_not_loaded_yet(tmp_path: Path) -> None:
    """The estimate does not know its columns: 12 tokens for each byte of theirs would be reserved, and one was."""
    name = "a lovely cup of tea or a broken box"
    columns = (Column(name=name, kind="boolean", stored="input.x"),)
    models = {"m": tiny_classifier(tmp_path / "m")}
    models["wide"] = tiny_classifier(tmp_path / "w", columns=columns, form="fields")
    text = KeyStore(tmp_path).create("small", quota_tokens=1_000)[1]
    tensor = {"name": name, "datatype": "BOOL", "shape": [50], "data": [True] * 50}
    request = post("/v2/models/wide/infer", {"inputs": [tensor]}, text)
    service = service_of(models, LIMITS, access=str(tmp_path))
    loaded = service.models.pool.loaded.pop("wide")
    service.models.pool.load_version = lambda version: time.sleep(0.5) or loaded
    with served(service) as url, ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: ask(url, request), range(12)))
    service.auth.meter.close()
    each = used(tmp_path, "small").tokens // found.count(200)
    assert set(found) == {200, 429}
    assert used(tmp_path, "small").tokens < 1_000 + each, "beyond the quota by one request"


def test_a_quota_does_not_rest_on_the_estimate(model: Model, tmp_path: Path) -> None:
    """A tokenizer may make more of a byte than was thought: what it made is reserved before it is computed."""
    text = KeyStore(tmp_path).create("small", quota_tokens=300)[1]
    service = service_of({"m": model}, LIMITS, access=str(tmp_path))
    with served(service) as url, ThreadPoolExecutor(12) as pool:
        service.auth.per_byte = lambda: 0
        found = list(pool.map(lambda _: ask(url, post("/predict", LONG, text)), range(12)))
        assert ask(url, post("/predict", {"text": "tea"}, text)) == 429
    service.auth.meter.close()
    each = used(tmp_path, "small").tokens // found.count(200)
    assert set(found) == {200, 429}
    assert used(tmp_path, "small").tokens < 300 + each
