"""Spans: they continue the caller's trace, tell sizes and versions, never a text or a key; without a provider none."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from raypath.components.serving.middleware.request_log import RequestLogMiddleware
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.request_context import current_request, detached_context
from raypath.components.serving.observability.tracing import Tracer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def tracer_of(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(1.0)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracer(provider)


async def app(tracing: Tracer, scope: Any, receive: Any, send: Any) -> None:
    """As the service does it."""
    mine = current_request()
    mine.served_by("topics", 7)
    with tracing.span("tokenize", texts=2):
        await asyncio.sleep(0)
        mine.texts, mine.tokens = 2, 9
    with tracing.span("model", tokens=9, version=7):
        await asyncio.sleep(0.01)
        if scope["path"] == "/card":
            raise ValueError("a secret text")
    await asyncio.create_task(house(tracing), context=detached_context())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def house(tracing: Tracer) -> None:
    with tracing.span("model", tokens=1):
        pass


def ask(memory: InMemorySpanExporter | None, path: str = "/predict", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """A request; the line of its log."""
    lines: list[str] = []

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": path, "headers": [*headers, (b"authorization", b"Bearer rp_x")]}
    tracer = tracer_of(memory) if memory is not None else Tracer()
    traced = RequestLogMiddleware(partial(app, tracer), Metrics("s"), log_all=True, tracer=tracer, write=lines.append)
    asyncio.run(traced(scope, None, send))
    line: dict[str, Any] = json.loads(lines[0]) if lines else {}
    return line


def parent(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def test_a_request_its_tokenising_and_its_model_are_spans_of_the_callers_trace(memory: InMemorySpanExporter) -> None:
    line = ask(memory, "/predict", (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode()), (b"tracestate", b"a=b"))
    tokenise, model, root = memory.get_finished_spans()
    assert [span.name for span in (tokenise, model, root)] == ["tokenize", "model", "POST predict"]
    assert {f"{span.context.trace_id:032x}" for span in (tokenise, model, root)} == {TRACE}
    assert f"{parent(root):016x}" == PARENT
    assert parent(tokenise) == parent(model) == root.context.span_id
    assert (root.kind, root.context.trace_state.get("a")) == (SpanKind.SERVER, "b")
    assert dict(root.attributes or {}) == {
        "http.request.method": "POST", "http.route": "predict", "http.response.status_code": 200,
        "raypath.texts": 2, "raypath.tokens": 9,
        "raypath.model": "topics", "raypath.version": 7, "raypath.role": "main",
    }  # fmt: skip
    assert dict(model.attributes or {}) == {"raypath.tokens": 9, "raypath.version": 7}
    assert (model.end_time or 0) - (model.start_time or 0) >= 10e6
    assert root.status.status_code is StatusCode.UNSET
    assert line["trace"] == TRACE


def test_without_a_caller_a_trace_begins_and_a_wrong_header_is_passed_over(memory: InMemorySpanExporter) -> None:
    first, second = (
        ask(memory)["trace"],
        ask(memory, "/predict", (b"traceparent", b"00-zz-zz-01"), (b"x", "é".encode()))["trace"],
    )
    assert len({first, second, TRACE}) == 3
    assert not [span for span in memory.get_finished_spans() if span.name.startswith("POST") and span.parent]


def test_a_trace_that_the_caller_does_not_sample_is_not_sampled(memory: InMemorySpanExporter) -> None:
    ask(memory, "/predict", (b"traceparent", f"00-{TRACE}-{PARENT}-00".encode()))
    assert memory.get_finished_spans() == ()


def test_an_error_is_told_by_its_kind_alone_and_health_is_no_trace(memory: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"):
        ask(memory, "/card")
    root = memory.get_finished_spans()[-1]
    assert root.status.status_code is StatusCode.ERROR
    assert (root.attributes or {})["error.type"] == "ValueError"
    told = [span.to_json() for span in memory.get_finished_spans()]
    assert not [word for word in ("secret", "rp_x", "Traceback") if word in "".join(told)]
    memory.clear()
    ask(memory, "/healthz")
    assert memory.get_finished_spans() == ()


@pytest.mark.timing
def test_without_a_provider_a_span_costs_next_to_nothing() -> None:
    began = time.perf_counter()
    for _ in range(10_000):
        with Tracer().span("model", tokens=1):
            pass
    assert (time.perf_counter() - began) / 10_000 < 10e-6


def test_without_a_provider_there_are_no_spans() -> None:
    assert not Tracer().enabled
    assert "trace" not in ask(None)


def _run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    start = "from raypath.components.serving.observability import tracing\ntracer = tracing.start('topics')\n"
    code = f"{start}found = tracer.enabled\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], env={**env, **variables}, capture_output=True, text=True, check=True, timeout=60
    )


SPAN = "with tracer.request_span('POST', 'predict', []): pass\ntracer._tracer.span_processor.force_flush()"


def test_the_environment_tells_where_spans_go() -> None:
    done = _run(SPAN, OTEL_TRACES_EXPORTER="console")
    span = json.loads(done.stdout)
    assert (span["name"], span["resource"]["attributes"]["service.name"]) == ("POST predict", "topics")
    done = _run(SPAN, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="mine", OTEL_TRACES_SAMPLER="always_off")
    assert done.stdout == ""
    done = _run("import sys; print(found, 'opentelemetry.sdk' in sys.modules)")
    assert done.stdout.split() == ["False", "False"]
    for off in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}):
        assert _run("print(found)", **{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **off}).stdout.split() == [
            "False"
        ]


def test_without_the_extra_there_is_a_warning_and_a_service() -> None:
    done = _run("print(found)", OTEL_TRACES_EXPORTER="nobody_has_this")
    assert done.stdout.split() == ["False"]
    assert "pip install 'raypath[tracing]'" in done.stderr


def test_a_provider_that_is_there_is_taken() -> None:
    code = (
        "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider\n"
        "mine = TracerProvider(); trace.set_tracer_provider(mine)\n"
        "tracer = tracing.start('topics'); print(tracer.enabled, tracer._tracer.resource is mine.resource)"
    )
    assert _run(code).stdout.split() == ["True", "True"]
