"""What a replica does, in numbers for Prometheus, which Ray exports on the metrics port of each node.

A request and a batch only add to numbers in memory; a thread hands them to Ray once a second, and Ray exports them
every ten. Ray puts `ray_` in front of the names and `_total` behind those of counters. It estimates the sum of a
histogram from its buckets, so what averages are made of is counted beside it. Without Ray the numbers stay in memory.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Series = tuple[str, tuple[str, ...]]
"""Name of a metric, and the values of its labels."""
Export = Callable[[str, tuple[str, ...], float], None]
"""Takes what was added to a counter, a point of a histogram, the value of a gauge."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_POINTS = 20_000
"""Most that wait for the next flush."""
_PEAKS = 10
"""Flushes that a peak is told for, since Ray exports but one in ten."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricSpec:
    """One metric. labels: beside `application`, which all have; bounds: of a histogram's buckets."""

    kind: Literal["counter", "histogram", "gauge"]
    about: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_WHO = ("model", "version", "role")
METRIC_SPECS: Mapping[str, MetricSpec] = {
    "raypath_requests": MetricSpec("counter", "Requests answered, by status code.", ("route", "code", *_WHO)),
    "raypath_request_seconds": MetricSpec("histogram", "Headers to last byte.", ("route", *_WHO), _SECONDS),
    "raypath_request_texts": MetricSpec("counter", "Texts of the requests.", _WHO),
    "raypath_request_tokens": MetricSpec("counter", "Tokens of the requests.", _WHO),
    "raypath_batches": MetricSpec("counter", "Batches that the model ran."),
    "raypath_batch_rows": MetricSpec("counter", "Rows in the batches; what is asked twice at a time runs once."),
    "raypath_batch_size": MetricSpec("histogram", "Rows in a batch.", (), _ROWS),
    "raypath_batch_tokens": MetricSpec("counter", "Tokens in the batches, without padding."),
    "raypath_batch_padded_tokens": MetricSpec("counter", "Tokens in the batches, with padding."),
    "raypath_batch_seconds": MetricSpec("counter", "Time in the model, of all threads."),
    "raypath_queue_rows": MetricSpec("gauge", "Most rows that waited for the model in the last ten seconds."),
    "raypath_queue_tokens": MetricSpec("gauge", "Most tokens that waited for the model in the last ten seconds."),
    "raypath_version": MetricSpec("gauge", "Version in service, 0 for none.", ("role",)),
    "raypath_shadow_compared": MetricSpec("counter", "Texts that the shadow was asked too.", ("version",)),
    "raypath_shadow_agreed": MetricSpec("counter", "Texts of which the shadow predicted the same.", ("version",)),
    "raypath_shadow_skipped": MetricSpec("counter", "Requests that the shadow had no time for.", ("version",)),
    "raypath_shadow_failed": MetricSpec("counter", "Requests that the shadow could not answer.", ("version",)),
    "raypath_predictions_kept": MetricSpec("counter", "Predictions written to the prediction log."),
    "raypath_predictions_dropped": MetricSpec("counter", "Predictions that the prediction log had no room for."),
}


class Metrics:
    """The numbers of one replica; every method may be called from any thread.

    application: its name. export: takes the numbers, Ray where none is given. `start` its thread once.
    """

    def __init__(self, application: str, period: float = 1.0, export: Export | None = None) -> None:
        self.application, self.period = application, period
        self.counts: dict[Series, float] = defaultdict(float)
        """What was added since the last flush."""
        self.gauges: dict[Series, float] = {}
        self._points: deque[tuple[Series, float]] = deque(maxlen=_POINTS)
        self._waited = 0
        self._answered: deque[float] = deque([0.0] * _PEAKS, _PEAKS)
        """Requests by flush, lately."""
        self._peaks: deque[tuple[int, int]] = deque([(0, 0)], _PEAKS)
        self._waiting: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._export = export
        self._adding, self._flushing = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def request(
        self, route: str, code: int, seconds: float, who: tuple[str, str, str], texts: int = 0, tokens: int = 0
    ) -> None:
        """Count an answer. who: model, version and role that gave it, "" where it came so far with none."""
        with self._adding:
            self.counts["raypath_requests", (route, str(code), *who)] += 1
            self._points.append((("raypath_request_seconds", (route, *who)), seconds))
            if tokens:
                self.counts["raypath_request_texts", who] += texts
                self.counts["raypath_request_tokens", who] += tokens

    def batch(self, rows: int, tokens: int, padded: int, seconds: float, waiting: int) -> None:
        """Count a batch: what a Batcher's `observe` is told."""
        with self._adding:
            self.counts["raypath_batches", ()] += 1
            self.counts["raypath_batch_rows", ()] += rows
            self.counts["raypath_batch_tokens", ()] += tokens
            self.counts["raypath_batch_padded_tokens", ()] += padded
            self.counts["raypath_batch_seconds", ()] += seconds
            self._points.append((("raypath_batch_size", ()), float(rows)))
            self._waited = max(self._waited, waiting)

    def count(self, name: str, value: float, *labels: str) -> None:
        """Add to a counter."""
        with self._adding:
            self.counts[name, labels] += value

    def rate(self) -> float:
        """Requests answered a second, over the last ten flushes."""
        return sum(self._answered) / (len(self._answered) * self.period)

    def versions(self, held: Mapping[str, int]) -> None:
        """Tell which version is in service by role: main, canary, shadow."""
        with self._adding:
            for role in ("main", "canary", "shadow"):
                self.gauges["raypath_version", (role,)] = held.get(role, 0)

    def watch(self, waiting: Callable[[], tuple[int, int]]) -> None:
        """Ask this for the rows and the tokens that wait, at every flush."""
        self._waiting = waiting

    def start(self) -> None:
        """Begin to flush; a second call changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread and flush a last time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> bool:
        """Hand over what was added; whether there is anyone to take it."""
        with self._flushing:
            self._export = self._export or to_ray(self.application)
            if self._export is None:
                return False
            for (name, labels), value in self._take():
                self._export(name, labels, value)
        return True

    def _take(self) -> list[tuple[Series, float]]:
        rows, tokens = self._waiting()
        with self._adding:
            counts, self.counts = self.counts, defaultdict(float)
            points, self._points = self._points, deque(maxlen=_POINTS)
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
            except Exception as error:  # noqa: BLE001 - the service goes on without its numbers
                _log.warning("metrics could not be exported: %s", error)


def to_ray(application: str) -> Export | None:
    """Hands numbers to Ray; None in a process that is connected to none."""
    import ray

    if not ray.is_initialized():
        return None
    made = {name: _made(name, meter, application) for name, meter in METRIC_SPECS.items()}

    def export(name: str, labels: tuple[str, ...], value: float) -> None:
        record, keys = made[name]
        record(value, dict(zip(keys, labels, strict=True)))

    return export


def _made(
    name: str, meter: MetricSpec, application: str
) -> tuple[Callable[[float, dict[str, str]], None], tuple[str, ...]]:
    """How one of Ray's metrics takes a value, and which labels it wants."""
    from ray.util import metrics

    made: Any
    keys = (*meter.labels, "application")
    if meter.kind == "histogram":
        made = metrics.Histogram(name, meter.about, list(meter.bounds), keys)
        record = made.observe
    elif meter.kind == "counter":
        made = metrics.Counter(name, meter.about, keys)
        record = made.inc
    else:
        made = metrics.Gauge(name, meter.about, keys)
        record = made.set
    made.set_default_tags({"application": application})
    return record, meter.labels
