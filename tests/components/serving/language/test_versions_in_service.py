"""Versions of a replica of language models: when one is closed, when its engine counts as stuck, what is told of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from raypath.components.inference.generation.async_engine import EngineFault
from raypath.components.serving.middleware.request_log import route_of
from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan, Role
from raypath.components.serving.observability.tracing import Tracer
from raypath.components.serving.replica.language.loading import open_language_model
from tests.components.serving.language.chat_server import LIMITS, language_service, served_chat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
CANARY = "the canary is yellow"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 8}


def test_no_text_is_in_logs_metrics_or_traces(chat_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither of a prompt nor of a response, of a stream, a whole response, an invalid one and one that fails."""
    service = language_service({"m": chat_folder}, LIMITS.model_copy(update={"log_requests": True}))
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    service.tracer = Tracer(provider)
    service._known = service._loaded()
    told = [CANARY]
    with served_chat(service) as url, httpx.Client(base_url=url, timeout=20.0, trust_env=False) as client:
        path = "/v1/chat/completions"
        found = client.post(path, json={**ASK, "temperature": 0}).json()
        told.append(found["choices"][0]["message"]["content"])
        assert len(told[1]) > 3, "the model says something"
        assert client.post(path, json={**ASK, "stream": True}).status_code == 200
        assert client.post(path, json={**ASK, "n": 1_000}).status_code == 400
        assert client.post("/v1/completions", json={"model": "m", "prompt": CANARY, "max_tokens": 4}).status_code == 200
        service.models.main.engine.engine.step = lambda: (_ for _ in ()).throw(RuntimeError("no memory"))
        assert client.post(path, json=ASK).status_code == 503
        service._waiting()
    metrics = json.dumps([[name, *labels] for name, labels in [*service.metrics.counts, *service.metrics.gauges]])
    traces = "".join(span.to_json() for span in spans.get_finished_spans())
    logs = "".join(capfd.readouterr())
    assert '"path": "/v1/chat/completions"' in logs
    assert "completions" in metrics
    assert '"raypath.generated"' in traces
    for text in told:
        assert text not in logs
        assert text not in metrics
        assert text not in traces


def test_routes_of_language_models_have_labels_of_their_own() -> None:
    assert route_of("/talk/v1/chat/completions") == route_of("/v1/completions") == "completions"


def test_a_version_is_not_closed_while_a_request_that_selected_it_is_prepared(chat_folder: Path) -> None:
    """It has no response in progress yet: its prompt is long, and is rendered on a thread."""
    service = language_service({"m": chat_folder})
    first, second = service.models.main, open_language_model(chat_folder, "m", 2, threads=1)
    service._known = service._loaded()
    real, selected, swapped = service.prepare, threading.Event(), threading.Event()

    async def prepare(size: int, work: Any) -> Any:
        selected.set()
        await asyncio.to_thread(swapped.wait, 10)
        return await real(size, work)

    async def swap() -> None:
        service.models.active[Role.MAIN] = second
        service._swapped(ReplicaPlan(main=ModelVersion(name="m", version=2)))
        await asyncio.sleep(0.5)  # twice the pause between two looks at it

    service.prepare = prepare
    found: list[httpx.Response] = []
    with served_chat(service) as url:
        ask = threading.Thread(
            target=lambda: found.append(httpx.post(f"{url}/v1/chat/completions", json=ASK, timeout=20, trust_env=False))
        )
        ask.start()
        assert selected.wait(10)
        assert len(first.requests) == 1
        asyncio.run_coroutine_threadsafe(swap(), _loop_of(service, url)).result(10)
        first.engine.check_health()
        swapped.set()
        ask.join(20)
        assert (found[0].status_code, found[0].json()["version"]) == (200, 1)
        end = time.monotonic() + 10
        while service._retired:
            assert time.monotonic() < end, "it is closed afterwards"
            time.sleep(0.02)
    with pytest.raises(EngineFault, match="closed"):
        first.engine.check_health()


def _loop_of(service: Any, url: str) -> asyncio.AbstractEventLoop:
    """The event loop of the server that has this service."""
    found: list[asyncio.AbstractEventLoop] = []
    real = service.health

    def health() -> Any:
        found.append(asyncio.get_running_loop())
        return real()

    service.health = health
    httpx.get(f"{url}/healthz", trust_env=False)
    return found[0]


def test_an_engine_that_is_stuck_ends_its_streams_and_fails_the_health_check(
    chat_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = language_service({"m": chat_folder})
    monkeypatch.setattr("raypath.components.serving.replica.base.STALLED_SECONDS", 0.05)
    engine, stuck = service.models.main.engine.engine, threading.Event()
    real, steps = engine.step, []

    def step() -> Any:
        steps.append(1)
        if len(steps) == 3:
            stuck.wait(20)
        return real()

    engine.step = step
    with served_chat(service) as url:
        body = {**ASK, "stream": True, "max_tokens": 60}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=20, trust_env=False) as reply:
            lines = reply.iter_lines()
            assert next(lines)
            time.sleep(0.2)
            with pytest.raises(EngineFault, match="has not finished a step"):
                asyncio.run(service.check_health())
            last = list(filter(None, lines))[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == (
            "the engine of the model failed; try again"
        )
        stuck.set()


def test_the_time_until_a_replica_serves_is_a_metric(chat_folder: Path) -> None:
    service = language_service({"m": chat_folder})
    plan, service.models.plan = service.models.plan, None
    asyncio.run(service._apply(plan))
    assert service.metrics.gauges["raypath_start_seconds", ()] > 0
    assert service.metrics.gauges["raypath_load_seconds", ()] >= 0
