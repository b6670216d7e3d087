"""The serving bench without its peers: percentiles, the load client against a small server, tables."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from tests.bench import serve_tables, serving
from tests.bench.load import Load, Seen, apply, figures, percentile

PAUSE = 0.02
KEY = {"X-Api-Key": "let me in"}


@pytest.fixture(scope="module")
def server() -> Iterator[SimpleNamespace]:
    """Answers after 20 ms; every fifth text is refused with 503, and without the key all are with 401."""
    seen: Counter[str] = Counter()
    peers: set[object] = set()
    found = SimpleNamespace(url="", seen=seen, peers=peers)
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        text = (await request.json())["text"]
        seen[text] += 1
        if request.headers.get("X-Api-Key") != KEY["X-Api-Key"]:
            return web.Response(status=401)
        if int(text) % 5 == 4:
            return web.Response(status=503)
        await asyncio.sleep(PAUSE)
        return web.json_response({"label": text})

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/predict", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/predict"
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    yield found
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture(autouse=True)
def _afresh(server: SimpleNamespace) -> None:
    server.seen.clear()
    server.peers.clear()


def load(server: SimpleNamespace, **more: Any) -> dict[str, Any]:
    bodies = [json.dumps({"text": str(n)}) for n in range(10)]
    given = {"url": server.url, "bodies": bodies, "headers": KEY, "clients": 4, "seconds": 0.5, "warm": 0, **more}
    return asyncio.run(apply(Load(**given)))


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 0.99, 1.0])
def test_percentiles_are_those_of_numpy(count: int, share: float) -> None:
    values = np.random.default_rng(count).normal(size=count).tolist()
    assert percentile(values, share) == pytest.approx(np.quantile(values, share))


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 0.5))


def test_figures_count_what_came_in_time_and_time_what_came_at_all() -> None:
    seen = [
        Seen(0.0, 1.0, "200", 0.0),
        Seen(1.0, 3.0, "200", 0.5),
        Seen(1.0, 1.1, "503", 0.0),
        Seen(0, 9, "timeout", 0),
    ]
    found = figures(seen, 0.0, 2.0)
    assert (found["sent"], found["answered"], found["requests_s"]) == (4, 2, 0.5)
    assert (found["p50_ms"], found["max_ms"]) == (1500.0, 2000.0)
    assert found["errors"] == {"503": 1, "timeout": 1}
    assert found["refused"]["share"] == 0.25
    assert found["refused"]["p50_ms"] == pytest.approx(100.0)


def test_closed_loop(server: SimpleNamespace) -> None:
    found = load(server)
    assert found["sent"] == sum(server.seen.values())
    assert found["errors"] == {"503": found["sent"] - found["answered"]}
    assert max(server.seen.values()) - min(server.seen.values()) <= 1  # in turn
    assert len(server.peers) <= 4  # kept alive
    assert found["p50_ms"] >= 1000 * PAUSE * 0.9
    assert found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert 0 < found["requests_s"] <= 1.25 * 4 / PAUSE


def test_the_warm_up_does_not_count(server: SimpleNamespace) -> None:
    found = load(server, warm=20)
    assert sum(server.seen.values()) == found["sent"] + 20


@pytest.mark.timing
def test_an_open_loop_sends_at_its_own_pace(server: SimpleNamespace) -> None:
    found = load(server, rate=200.0)
    assert found["sent"] == sum(server.seen.values())
    assert 50 <= found["sent"] <= 160
    assert 0.1 < found["refused"]["share"] < 0.3


def test_statuses_and_dead_servers_are_errors(server: SimpleNamespace) -> None:
    found = load(server, headers={})
    assert set(found["errors"]) == {"401"}
    assert found["answered"] == 0
    assert set(load(server, url="http://127.0.0.1:1/predict", rate=20.0)["errors"]) <= {"connection"}
    assert set(load(server, timeout=0.005, rate=20.0)["errors"]) <= {"timeout", "503"}


def test_ratios_are_medians_of_rounds() -> None:
    def rounds(*rates: float) -> list[dict[str, Any]]:
        return [{"requests_s": rate, "p50_ms": 10.0, "p99_ms": 20.0, "errors": {"503": 2}} for rate in rates]

    given = {
        "ray-pipeline": rounds(10, 20, 40),
        "raypath": rounds(30, 40, 60),
        "offline": [{"requests_s": rate, "errors": {}} for rate in (60, 50, 80)],
    }
    lines = serve_tables.load_table(given)
    assert lines[1]["requests/s"] == "40.0 (30.0-60.0)"
    assert (lines[1]["/ ray-pipeline"], lines[1]["/ litserve"], lines[1]["of offline"]) == ("2.00", "", "75%")
    assert lines[1]["errors"] == "6 x 503"
    assert (lines[2]["p50 ms"], lines[2]["of offline"]) == ("", "100%")
    assert {tuple(line) for line in lines} == {tuple(lines[0])}


def test_settings_of_the_step_serve_are_read_with_their_types(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = serving.options(["--set", "batch=16", "request_timeout=0.5", "--out", "/tmp/somewhere"])
    assert chosen.set == {"batch": 16, "request_timeout": 0.5}
    with pytest.raises(SystemExit):
        serving.options(["--set", "batch_wait=0.01"])
    assert "batch_wait" in capsys.readouterr().err
