"""Spans of a request after OpenTelemetry: the request, its tokenising, its time in the model and waiting for it.

Nothing is made, and next to nothing is spent, before `start` has found where spans go: a tracer provider that somebody
else has set, or one by the standard variables of the environment,

    OTEL_EXPORTER_OTLP_ENDPOINT   http://collector:4318 (the extra `tracing`); OTEL_TRACES_EXPORTER=console prints them
    OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*, OTEL_SDK_DISABLED

Sizes, versions and times are told of; texts, keys and addresses never.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

Told = str | int | float
_NOTHING: AbstractContextManager[Any] = nullcontext()
_NAME = "raypath.serving"
_log = logging.getLogger(__name__)
_tracer: Any = None


def start(service: str) -> bool:
    """Look where spans go, once a process; whether they go anywhere. service: a name where the environment has none."""
    from opentelemetry import trace

    provider: TracerProvider | None = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = _by_environment(service)
    use(provider)
    return provider is not None


def use(provider: TracerProvider | None) -> None:
    """Make spans with this provider from now on; None ends it."""
    global _tracer
    _tracer = None if provider is None else provider.get_tracer(_NAME)


def on() -> bool:
    """Whether spans are made."""
    return _tracer is not None


def request_span(
    method: str, route: str, headers: Iterable[tuple[bytes, bytes]]
) -> AbstractContextManager[Span | None]:
    """The span of a request, which continues the trace that the caller's headers (traceparent) tell of."""
    if _tracer is None:
        return _NOTHING
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind

    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    told = {"http.request.method": method, "http.route": route}
    return _span(f"{method} {route}", told, context=propagate.extract(carrier), kind=SpanKind.SERVER)


def span(name: str, **told: Told) -> AbstractContextManager[Span | None]:
    """A span within that of the request; none where there is no request."""
    if _tracer is None:
        return _NOTHING
    from opentelemetry import trace

    if not trace.get_current_span().get_span_context().is_valid:
        return _NOTHING
    return _span(name, {f"raypath.{key}": value for key, value in told.items()})


def close(span: Span | None, status: int, told: Mapping[str, Told], error: str) -> None:
    """Tell a request's span how it ended."""
    if span is None:
        return
    from opentelemetry.trace import Status, StatusCode

    span.set_attributes({"http.response.status_code": status, **{f"raypath.{k}": v for k, v in told.items()}})
    if status >= 500:
        span.set_attribute("error.type", error or str(status))
        span.set_status(Status(StatusCode.ERROR))


def trace_id(span: Span | None) -> str:
    """In hex, for a log; "" without a span."""
    return "" if span is None else f"{span.get_span_context().trace_id:032x}"


def _span(name: str, told: dict[str, Any], **more: Any) -> AbstractContextManager[Span]:
    # What an exception says may repeat a text, so it does not go into the span.
    made: AbstractContextManager[Span] = _tracer.start_as_current_span(
        name, attributes=told, record_exception=False, set_status_on_exception=False, **more
    )
    return made


def _by_environment(service: str) -> TracerProvider | None:
    """A provider as the environment wants it; None where it wants none, or its exporter is not installed."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    exporter = _exporter()
    if exporter is None:
        return None
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter() -> Any:
    """What sends spans; None for none."""
    from importlib.metadata import entry_points

    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "")
    ends = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if wanted == "none" or not (wanted or any(os.environ.get(name) for name in ends)):
        return None
    if wanted in ("", "otlp"):
        how = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
        wanted = "otlp_proto_grpc" if how == "grpc" else "otlp_proto_http"
    for found in entry_points(group="opentelemetry_traces_exporter", name=wanted):
        return found.load()()
    _log.warning("no traces: %s is not installed (pip install 'raypath[tracing]')", wanted)
    return None
