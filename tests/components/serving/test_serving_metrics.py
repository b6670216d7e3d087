"""The numbers of a replica: what is added up, what Ray exports of it and where, and that every panel asks for those."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from raypath.components.serving.observability.metrics import METRIC_SPECS, Metrics

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "k8s" / "components" / "monitoring" / "serving-dashboard.json"
WHO = ("topics", "7", "main")
Taken = dict[tuple[str, tuple[str, ...]], list[float]]


def taking() -> tuple[Metrics, Taken]:
    """Metrics, and what was taken from them."""
    taken: Taken = defaultdict(list)
    return Metrics("topics", 0.01, lambda name, labels, value: taken[name, labels].append(value)), taken


def record(metrics: Metrics) -> None:
    """Something of everything."""
    metrics.request("predict", 200, 0.03, WHO, texts=2, tokens=9)
    metrics.request("predict", 200, 0.3, WHO, texts=1, tokens=1)
    metrics.request("other", 404, 0.001, ("", "", ""))
    metrics.batch(3, 10, 12, 0.02, 5)
    metrics.versions({"main": 7, "canary": 8})
    for name, meter in METRIC_SPECS.items():
        if name.startswith(("raypath_shadow", "raypath_predictions")):
            metrics.count(name, 4, *("9" for _ in meter.labels))
    for name in ("raypath_prompt_tokens", "raypath_cached_tokens", "raypath_generated_tokens", "raypath_aborted"):
        metrics.count(name, 2, *WHO)
    for name in ("raypath_first_token_seconds", "raypath_token_seconds"):
        metrics.observe(name, 0.02, *WHO)
    for name in ("raypath_running", "raypath_waiting", "raypath_waiting_tokens", "raypath_cache_use"):
        metrics.gauge(name, 0.5, *WHO[:2])
    for name in ("raypath_start_seconds", "raypath_load_seconds"):
        metrics.gauge(name, 4.0)
    metrics.gauge("raypath_certificate_expiry_seconds", 1.9e9, "endpoints")


def test_numbers_are_added_up_and_handed_over_once() -> None:
    metrics, taken = taking()
    metrics.watch(lambda: (2, 40))
    record(metrics)
    assert metrics.flush()
    assert taken["raypath_requests", ("predict", "200", *WHO)] == [2]
    assert taken["raypath_request_seconds", ("predict", *WHO)] == [0.03, 0.3]
    assert taken["raypath_request_tokens", WHO] == [10]
    assert taken["raypath_request_texts", WHO] == [3]
    assert (taken["raypath_batch_tokens", ()], taken["raypath_batch_padded_tokens", ()]) == ([10], [12])
    assert taken["raypath_version", ("canary",)] == [8]
    assert taken["raypath_version", ("shadow",)] == [0]
    assert {name for name, _ in taken} == set(METRIC_SPECS), "and every metric is recorded somewhere"
    assert all(len(labels) == len(METRIC_SPECS[name].labels) for name, labels in taken)
    taken.clear()
    metrics.flush()
    assert {name for name, _ in taken} == {name for name, spec in METRIC_SPECS.items() if spec.kind == "gauge"}


def test_a_short_queue_is_seen_for_ten_flushes() -> None:
    metrics, taken = taking()
    now = [(3, 70)]
    metrics.watch(lambda: now[0])
    metrics.batch(1, 1, 1, 0.1, 11)
    metrics.flush()
    now[0] = (0, 0)
    for _ in range(10):
        metrics.flush()
    assert taken["raypath_queue_rows", ()] == [11] * 10 + [0]
    assert taken["raypath_queue_tokens", ()] == [70] * 10 + [0]


def test_threads_lose_nothing_while_it_flushes_by_itself() -> None:
    metrics, taken = taking()
    metrics.start()
    metrics.start()

    def work() -> None:
        for _ in range(3_000):
            metrics.request("predict", 200, 0.1, WHO, 1, 2)
            metrics.batch(1, 2, 3, 0.1, 0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics.close()
    assert sum(taken["raypath_requests", ("predict", "200", *WHO)]) == 12_000
    assert sum(taken["raypath_batch_padded_tokens", ()]) == 36_000
    assert len(taken["raypath_requests", ("predict", "200", *WHO)]) > 1, "it did not wait for the end"
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]


def test_an_exporter_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def export(name: str, labels: tuple[str, ...], value: float) -> None:
        seen.append(name)
        if len(seen) < 3:
            raise OSError("away")

    metrics = Metrics("m", 0.01, export)
    metrics.start()
    end = time.monotonic() + 10
    while len(seen) < 9 and time.monotonic() < end:
        time.sleep(0.01)
    metrics.close()
    assert len(seen) >= 9
    assert "could not be exported: away" in caplog.text


@pytest.mark.timing
def test_a_request_is_counted_in_microseconds() -> None:
    metrics, began = Metrics("m"), time.perf_counter()
    for _ in range(30_000):
        metrics.request("predict", 200, 0.1, WHO, 1, 2)
    assert (time.perf_counter() - began) / 30_000 < 100e-6


def test_without_ray_numbers_stay_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypath.components.serving.observability.metrics.ray_exporter", lambda application: None)
    metrics = Metrics("m")
    for _ in range(30_000):
        metrics.request("predict", 200, 0.1, WHO, 1, 2)
    assert not metrics.flush()
    assert metrics.counts["raypath_requests", ("predict", "200", *WHO)] == 30_000
    assert len(metrics._points) <= 20_000


# -- with Ray


def export(home: Path) -> None:
    """Record everything as a driver of a home's Ray, and print its address and what it exports once all is there."""
    from raypath.deploy.local.ray_connection import connection

    connection.connect(home)
    import ray

    metrics = Metrics("topics", 0.2)
    record(metrics)
    metrics.start()
    address = f"127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}"
    end, text = time.monotonic() + 20, ""
    while not all(f"# HELP ray_{name}" in text for name in METRIC_SPECS) and time.monotonic() < end:
        time.sleep(0.2)
        text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
    metrics.close()
    print(f"{address}\n{text}")


@pytest.fixture(scope="module")
def exported(two_heads: dict[str, Path]) -> tuple[str, str]:
    """Where a real Ray on this machine exports metrics, and what."""
    module = "tests.components.serving.test_serving_metrics"
    code = f"import sys, pathlib; from {module} import export; export(pathlib.Path(sys.argv[1]))"
    # A driver exports every ten seconds; nobody has to wait for that here.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_metrics_report_interval_ms": "1000"}
    command = [sys.executable, "-c", code, str(two_heads["two"])]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    address, _, text = done.stdout.partition("\n")
    return address, text


def families(text: str) -> dict[str, Any]:
    from prometheus_client.parser import text_string_to_metric_families

    return {family.name: family for family in text_string_to_metric_families(text)}


def test_ray_exports_them_on_loopback_with_their_labels(exported: tuple[str, str]) -> None:
    address, text = exported
    found = families(text)
    assert address.startswith("127.0.0.1:")
    for name, meter in METRIC_SPECS.items():
        family = found[f"ray_{name}"]
        assert family.type == meter.kind
        assert all({"application", *meter.labels} <= set(sample.labels) for sample in family.samples)
    requests = {s.labels["code"]: s.value for s in found["ray_raypath_requests"].samples if s.name.endswith("_total")}
    assert requests == {"200": 2, "404": 1}
    one = next(s for s in found["ray_raypath_requests"].samples if s.labels["code"] == "200")
    assert {name: one.labels[name] for name in ("application", "route", "model", "version", "role")} == {
        "application": "topics", "route": "predict", "model": "topics", "version": "7", "role": "main",
    }  # fmt: skip
    buckets = {s.labels["le"]: s.value for s in found["ray_raypath_request_seconds"].samples if _is_main(s, "_bucket")}
    assert (buckets["0.025"], buckets["0.05"], buckets["0.5"], buckets["+Inf"]) == (0, 1, 2, 2)
    versions = {s.labels["role"]: s.value for s in found["ray_raypath_version"].samples}
    assert versions == {"main": 7, "canary": 8, "shadow": 0}


def _is_main(sample: Any, end: str) -> bool:
    return sample.name.endswith(end) and sample.labels["role"] == "main"


def test_the_dashboard_asks_for_what_is_exported_and_shows_all_of_it(exported: tuple[str, str]) -> None:
    found = families(exported[1])
    known = {sample.name: set(sample.labels) for family in found.values() for sample in family.samples}
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked: set[str] = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            names = re.findall(r"\bray_\w+", target["expr"])
            assert names, panel["title"]
            assert set(names) <= set(known), panel["title"]
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            counted = set(re.findall(r'count_values by \(\w+\) \("(\w+)"', target["expr"]))
            assert labels <= grouped | counted, panel["title"]
            assert grouped <= set.union(*(known[name] for name in names)), panel["title"]
            asked |= set(names)
    whole = {re.sub(r"_(total|bucket)$", "", name) for name in asked}
    assert whole == {f"ray_{name}" for name in METRIC_SPECS}
    (variable,) = [v for v in board["templating"]["list"] if v["type"] == "query"]
    assert variable["query"]["query"] == "label_values(ray_raypath_version, application)"


def test_every_panel_has_a_place_of_its_own() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        assert panel["description"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
