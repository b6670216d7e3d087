"""Prometheus metrics of a replica, exported by Ray on the metrics port of each node.

Requests and batches update values in memory; a thread passes them to Ray every second, and Ray exports them every ten.
Ray adds the prefix `ray_`, and the suffix `_total` for counters. It estimates a histogram's sum from its buckets, so
exact sums are counters of their own. Without Ray the values stay in memory.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Series = tuple[str, tuple[str, ...]]
"""Name of a metric and its label values."""
Export = Callable[[str, tuple[str, ...], float], None]
"""Receives a counter's increment, a histogram's observation or a gauge's value."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_MAX_POINTS = 20_000
"""Maximum number of observations between two flushes."""
_PEAKS = 10
"""Number of flushes for which a peak is reported, since Ray exports every tenth."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricSpec:
    """Specification of a metric. labels: besides `application`; bounds: buckets of a histogram."""

    kind: Literal["counter", "histogram", "gauge"]
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_MODEL_LABELS = ("model", "version", "role")
_VERSION_LABELS = ("model", "version")
METRIC_SPECS: Mapping[str, MetricSpec] = {
    "raypath_requests": MetricSpec("counter", "Requests, by status code.", ("route", "code", *_MODEL_LABELS)),
    "raypath_request_seconds": MetricSpec(
        "histogram", "Request latency, headers to last byte.", ("route", *_MODEL_LABELS), _SECONDS
    ),
    "raypath_request_texts": MetricSpec("counter", "Texts of the requests.", _MODEL_LABELS),
    "raypath_request_tokens": MetricSpec("counter", "Tokens of the requests.", _MODEL_LABELS),
    "raypath_batches": MetricSpec("counter", "Batches that the model ran."),
    "raypath_batch_rows": MetricSpec("counter", "Rows in the batches; identical rows run once."),
    "raypath_batch_size": MetricSpec("histogram", "Rows in a batch.", (), _ROWS),
    "raypath_batch_tokens": MetricSpec("counter", "Tokens in the batches, without padding."),
    "raypath_batch_padded_tokens": MetricSpec("counter", "Tokens in the batches, with padding."),
    "raypath_batch_seconds": MetricSpec("counter", "Time in the model, of all threads."),
    "raypath_queue_rows": MetricSpec("gauge", "Peak of queued rows over the last ten seconds."),
    "raypath_queue_tokens": MetricSpec("gauge", "Peak of queued tokens over the last ten seconds."),
    "raypath_version": MetricSpec("gauge", "Version in service, 0 for none.", ("role",)),
    "raypath_shadow_compared": MetricSpec("counter", "Texts sent to the shadow.", ("version",)),
    "raypath_shadow_agreed": MetricSpec("counter", "Texts with the same prediction by the shadow.", ("version",)),
    "raypath_shadow_skipped": MetricSpec(
        "counter", "Requests not sent to the shadow, because the replica was busy.", ("version",)
    ),
    "raypath_shadow_failed": MetricSpec("counter", "Requests on which the shadow failed.", ("version",)),
    "raypath_first_token_seconds": MetricSpec(
        "histogram", "Time to the first token of a response, from its admission.", _MODEL_LABELS, _SECONDS
    ),
    "raypath_token_seconds": MetricSpec(
        "histogram", "Time per token of a response after the first.", _MODEL_LABELS, _TOKEN_SECONDS
    ),
    "raypath_prompt_tokens": MetricSpec("counter", "Tokens of prompts, cached ones included.", _MODEL_LABELS),
    "raypath_cached_tokens": MetricSpec("counter", "Tokens of prompts from the prefix cache.", _MODEL_LABELS),
    "raypath_generated_tokens": MetricSpec("counter", "Tokens that language models generated.", _MODEL_LABELS),
    "raypath_aborted": MetricSpec("counter", "Responses that ended before their last token.", _MODEL_LABELS),
    "raypath_cache_use": MetricSpec("gauge", "Share of the key-value cache in use, 0 to 1.", _VERSION_LABELS),
    "raypath_running": MetricSpec("gauge", "Responses that are being generated.", _VERSION_LABELS),
    "raypath_waiting": MetricSpec("gauge", "Requests without a first token.", _VERSION_LABELS),
    "raypath_waiting_tokens": MetricSpec(
        "gauge", "Tokens of prompts that are not read, and expected ones of responses.", _VERSION_LABELS
    ),
    "raypath_start_seconds": MetricSpec(
        "gauge", "Time from the creation of the replica to its first version in service."
    ),
    "raypath_load_seconds": MetricSpec("gauge", "Time that the versions of the last plan took to load."),
    "raypath_predictions_logged": MetricSpec("counter", "Predictions written to the prediction log."),
    "raypath_predictions_dropped": MetricSpec(
        "counter", "Predictions dropped because the prediction log's queue was full."
    ),
    "raypath_certificate_expiry_seconds": MetricSpec(
        "gauge", "Unix time at which a certificate or a revocation list of TLS ends.", ("certificate",)
    ),
}


class Metrics:
    """Metrics of one replica. Methods are thread-safe.

    application: Value of the label `application`. export: Receives the values; None exports them to Ray.
    """

    def __init__(self, application: str, period: float = 1.0, export: Export | None = None) -> None:
        self.application, self.period = application, period
        self.counts: dict[Series, float] = defaultdict(float)
        """Increments since the last flush."""
        self.gauges: dict[Series, float] = {}
        self._points: deque[tuple[Series, float]] = deque(maxlen=_MAX_POINTS)
        self._waited = 0
        self._answered: deque[float] = deque([0.0] * _PEAKS, _PEAKS)
        """Number of requests in each of the last flushes."""
        self._peaks: deque[tuple[int, int]] = deque([(0, 0)], _PEAKS)
        self._waiting: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._export = export
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def request(
        self, route: str, code: int, seconds: float, who: tuple[str, str, str], texts: int = 0, tokens: int = 0
    ) -> None:
        """Record a response. who: model, version and role, "" if no model was selected."""
        with self._lock:
            self.counts["raypath_requests", (route, str(code), *who)] += 1
            self._points.append((("raypath_request_seconds", (route, *who)), seconds))
            if tokens:
                self.counts["raypath_request_texts", who] += texts
                self.counts["raypath_request_tokens", who] += tokens

    def batch(self, rows: int, tokens: int, padded: int, seconds: float, waiting: int) -> None:
        """Record a batch; the `observe` callback of a Batcher."""
        with self._lock:
            self.counts["raypath_batches", ()] += 1
            self.counts["raypath_batch_rows", ()] += rows
            self.counts["raypath_batch_tokens", ()] += tokens
            self.counts["raypath_batch_padded_tokens", ()] += padded
            self.counts["raypath_batch_seconds", ()] += seconds
            self._points.append((("raypath_batch_size", ()), float(rows)))
            self._waited = max(self._waited, waiting)

    def count(self, name: str, value: float, *labels: str) -> None:
        """Increment a counter."""
        with self._lock:
            self.counts[name, labels] += value

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Record an observation of a histogram."""
        with self._lock:
            self._points.append(((name, labels), value))

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self.gauges[name, labels] = value

    def rate(self) -> float:
        """Return the requests per second over the last ten flushes."""
        return sum(self._answered) / (len(self._answered) * self.period)

    def versions(self, active: Mapping[Any, int]) -> None:
        """Set the version in service by role: main, canary, shadow."""
        with self._lock:
            for role in ("main", "canary", "shadow"):
                self.gauges["raypath_version", (role,)] = active.get(role, 0)

    def watch(self, waiting: Callable[[], tuple[int, int]]) -> None:
        """Set the callback that returns the queued rows and tokens, called at every flush."""
        self._waiting = waiting

    def start(self) -> None:
        """Start the flushing thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread and flush."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> bool:
        """Export the values; returns False if there is no exporter."""
        with self._flushing:
            self._export = self._export or ray_exporter(self.application)
            if self._export is None:
                return False
            for (name, labels), value in self._drain():
                self._export(name, labels, value)
        return True

    def _drain(self) -> list[tuple[Series, float]]:
        rows, tokens = self._waiting()
        with self._lock:
            counts, self.counts = self.counts, defaultdict(float)
            points, self._points = self._points, deque(maxlen=_MAX_POINTS)
            self._answered.append(sum(value for (name, _), value in counts.items() if name == "raypath_requests"))
            self._peaks.append((max(rows, self._waited), tokens))
            self._waited = 0
            for name, most in zip(("rows", "tokens"), map(max, zip(*self._peaks, strict=True)), strict=True):
                self.gauges[f"raypath_queue_{name}", ()] = most
            gauges = list(self.gauges.items())
        return [*((series, value) for series, value in counts.items() if value > 0), *points, *gauges]

    def _run(self) -> None:
        while not self._stop.wait(self.period):
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 - the service continues without metrics
                _log.warning("metrics could not be exported: %s", error)


def ray_exporter(application: str) -> Export | None:
    """Return an exporter to Ray; None in a process that is not connected to Ray."""
    import ray

    if not ray.is_initialized():
        return None
    created = {name: _create(name, spec, application) for name, spec in METRIC_SPECS.items()}

    def export(name: str, labels: tuple[str, ...], value: float) -> None:
        record, keys = created[name]
        record(value, dict(zip(keys, labels, strict=True)))

    return export


def _create(
    name: str, spec: MetricSpec, application: str
) -> tuple[Callable[[float, dict[str, str]], None], tuple[str, ...]]:
    """Create a metric in Ray; returns its record function and its labels."""
    from ray.util import metrics

    created: Any
    keys = (*spec.labels, "application")
    if spec.kind == "histogram":
        created = metrics.Histogram(name, spec.description, list(spec.bounds), keys)
        record = created.observe
    elif spec.kind == "counter":
        created = metrics.Counter(name, spec.description, keys)
        record = created.inc
    else:
        created = metrics.Gauge(name, spec.description, keys)
        record = created.set
    created.set_default_tags({"application": application})
    return record, spec.labels
