"""OpenTelemetry tracing: spans for a request, its tokenization, and its time in the queue and the model.

Without a tracer provider, spans cost next to nothing. `start` takes the global provider if there is one, else one from
the standard environment variables:

    OTEL_EXPORTER_OTLP_ENDPOINT   http://collector:4318 (the extra `tracing`); OTEL_TRACES_EXPORTER=console prints them
    OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*, OTEL_SDK_DISABLED

Attributes are sizes, versions and times, never texts, keys or client addresses.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

Value = str | int | float
_NO_SPAN: AbstractContextManager[Any] = nullcontext()
_NAME = "raypath.serving"
_log = logging.getLogger(__name__)


class Tracer:
    """Tracer of one service; without a provider its spans do nothing."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer: Any = None if provider is None else provider.get_tracer(_NAME)

    @property
    def enabled(self) -> bool:
        """True if spans are recorded."""
        return self._tracer is not None

    def request_span(
        self, method: str, route: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> AbstractContextManager[Span | None]:
        """Start the span of a request; it continues the trace of the caller's `traceparent` header."""
        if self._tracer is None:
            return _NO_SPAN
        from opentelemetry import propagate
        from opentelemetry.trace import SpanKind

        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        attributes = {"http.request.method": method, "http.route": route}
        context = propagate.extract(carrier)
        return self._start(f"{method} {route}", attributes, context=context, kind=SpanKind.SERVER)

    def span(self, name: str, **attributes: Value) -> AbstractContextManager[Span | None]:
        """Start a child span of the current request; none outside of a request."""
        if self._tracer is None:
            return _NO_SPAN
        from opentelemetry import trace

        if not trace.get_current_span().get_span_context().is_valid:
            return _NO_SPAN
        return self._start(name, {f"raypath.{key}": value for key, value in attributes.items()})

    def _start(self, name: str, attributes: dict[str, Any], **more: Any) -> AbstractContextManager[Span]:
        # An exception's message may contain a text, so it is not recorded.
        span: AbstractContextManager[Span] = self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False, **more
        )
        return span


def start(service: str) -> Tracer:
    """Create the tracer of a service. service: the service name unless the environment sets one."""
    from opentelemetry import trace

    provider: TracerProvider | None = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = _by_environment(service)
    return Tracer(provider)


def finish(span: Span | None, status: int, attributes: Mapping[str, Value], error: str) -> None:
    """Set the outcome of a request on its span."""
    if span is None:
        return
    from opentelemetry.trace import Status, StatusCode

    span.set_attributes({"http.response.status_code": status, **{f"raypath.{k}": v for k, v in attributes.items()}})
    if status >= 500:
        span.set_attribute("error.type", error or str(status))
        span.set_status(Status(StatusCode.ERROR))


def trace_id(span: Span | None) -> str:
    """Return the trace id in hex; "" without a span."""
    return "" if span is None else f"{span.get_span_context().trace_id:032x}"


def _by_environment(service: str) -> TracerProvider | None:
    """Create a provider from the environment; None if tracing is off or its exporter is not installed."""
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
    """Create the span exporter that the environment names; None for none."""
    from importlib.metadata import entry_points

    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "")
    ends = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if wanted == "none" or not (wanted or any(os.environ.get(name) for name in ends)):
        return None
    if wanted in ("", "otlp"):
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", ""
        )
        wanted = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    for found in entry_points(group="opentelemetry_traces_exporter", name=wanted):
        return found.load()()
    _log.warning("no traces: %s is not installed (pip install 'raypath[tracing]')", wanted)
    return None
