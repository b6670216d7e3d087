"""What commands print about services, endpoints, models, plans and signatures: each line in full."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from raypath.components.serving.replica.status import ReplicaStatus
from raypath.deploy.api import services
from raypath.deploy.api.results import (
    EndpointMessage,
    EndpointStatus,
    ModelVersion,
    Plan,
    PlannedStep,
    ServiceStatus,
    ShardCacheStatus,
    Status,
)
from raypath.deploy.api.security.signatures import RotatedKey, VersionSignature
from raypath.deploy.cli.plan import show_plan
from raypath.deploy.cli.security import signatures
from raypath.deploy.cli.status import shard_cache_line, show_models, show_status


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def _endpoint(**changes: Any) -> EndpointStatus:
    fields: dict[str, Any] = {
        **{"name": "reviews", "url": "http://127.0.0.1:8000/reviews", "status": "ok", "versions": [3], "replicas": 1},
        **{"requests_per_second": 1.25, "messages": []},
    }
    return EndpointStatus(**{**fields, **changes})


def test_services_and_endpoints(capsys: pytest.CaptureFixture[str]) -> None:
    since = datetime(2026, 11, 1, 7, 5, tzinfo=UTC)
    common: dict[str, Any] = {"pid": 1, "log": ""}
    messages = [
        EndpointMessage(role="main", text="version 4 was rejected [x]"),
        EndpointMessage(role="canary", text="5% of requests"),
    ]
    show_status(
        Status(
            home="/home",
            services=[
                ServiceStatus(name="ray", state="up", url="http://a:1", since=since, memory_mib=700, **common),
                ServiceStatus(name="mlflow", state="down", url="", since=None, memory_mib=0, **common),
            ],
            endpoints=[
                _endpoint(status="degraded", versions=[3, 4], replicas=2, messages=messages),
                _endpoint(name="topics", versions=[], requests_per_second=0.04),
                _endpoint(name="prices", status="scaled to zero", replicas=0),
            ],
            public_url="https://10.0.0.1:8443",
            shard_cache=ShardCacheStatus(
                folder="/shards", shards=1200, bytes=3 << 30, limit=5 << 30, removed=0, removed_bytes=0
            ),
        )
    )
    up = "endpoint up    http://127.0.0.1:8000/reviews"
    assert _lines(capsys) == [
        "ray      up    http://a:1                 since 07:05 700 MiB",
        "mlflow   down                              ",
        "               https://10.0.0.1:8443      endpoints, for other machines",
        "shards         /shards  1,200, 3,072 of 5,120 MiB",
        f"{up} reviews version 3 and 4, 2 replicas, 1.2 requests a second",
        "  status       version 4 was rejected [x]",
        "  canary       5% of requests",
        f"{up} topics version unknown, 1 replica, 0.0 requests a second",
        f"{up} prices, scaled to zero; the next request starts a replica",
    ]
    show_status(Status(home="/home", services=[], endpoints=[], public_url="", shard_cache=None))
    assert _lines(capsys) == []


def test_shards_that_were_removed() -> None:
    numbers = {"shards": 2, "bytes": 3 << 20, "limit": 5 << 20, "removed": 1500, "removed_bytes": 7 << 20}
    line = "shards         /s  2, 3 of 5 MiB; removed 1,500 (7 MiB)"
    assert shard_cache_line(ShardCacheStatus(folder="/s", **numbers)) == line  # type: ignore[arg-type]


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    show_models([])
    assert _lines(capsys) == ["no models yet; `raypath run text_classification` registers one"]
    metrics = {"ece": 0.01, "accuracy": 0.91234, "accuracy_low": 0.9, "accuracy_high": 0.92, "macro_f1": 0.8}
    made: dict[str, Any] = {"created": 0.0, "tags": {}}
    show_models(
        [
            ModelVersion(
                name="reviews", version=12, aliases=["champion", "b"], metrics=metrics, live="shadow: 4 of 9", **made
            ),
            ModelVersion(name="reviews", version=1, aliases=[], metrics={}, **made),
        ]
    )
    assert _lines(capsys) == [
        "reviews                12  @champion @b accuracy 0.9123, macro_f1 0.8000, ece 0.0100",
        "                           shadow: 4 of 9",
        "reviews                 1               ",
    ]


def _step(name: str, action: Any, seconds: float | None, reason: str) -> PlannedStep:
    return PlannedStep(
        name=name, action=action, reason=reason, inputs=[], output="Dataset", where="this machine", seconds=seconds
    )


def test_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    reused = _step("read", "reuse", 0.0, "nothing changed")
    steps = [
        reused,
        _step("split", "run", 65.0, "split.test 0.1 -> [0.2]"),
        _step("tune", "depends", None, "reused if"),
    ]
    show_plan(Plan(workflow="w", on="local", steps=steps, seconds=None))
    assert _lines(capsys) == [
        "w  dry run on local",
        "= read         reuse              nothing changed",
        "▸ split        run          1:05  this machine: split.test 0.1 -> [0.2]",
        "? tune         depends         ?  this machine: reused if",
        "",
        "2 of 3 steps would run or may run; time, by the run history: unknown",
    ]
    show_plan(Plan(workflow="w", on="ray", steps=steps[:2], seconds=65.0))
    assert _lines(capsys)[-1] == "1 of 2 steps would run or may run; time, by the run history: at most 1:05"
    show_plan(Plan(workflow="w", on="ray", steps=[reused, reused], seconds=0.0))
    assert _lines(capsys)[-2:] == ["", "nothing to do, 2 of 2 steps would be reused"]


def test_signatures(capsys: pytest.CaptureFixture[str]) -> None:
    valid = VersionSignature(
        name="reviews", version=3, aliases=["champion"], state="valid", reason="", key="ab12", files=9
    )
    altered = valid.model_copy(
        update={"version": 4, "aliases": [], "state": "altered", "reason": "weights differ", "key": ""}
    )
    assert signatures.show_signatures([valid]) == 0
    assert signatures.show_signatures([valid, altered]) == 1
    lines = [
        "reviews                 3  @champion    valid        9 files, key ab12",
        "reviews                 4               altered      weights differ",
    ]
    assert _lines(capsys) == [lines[0], *lines]
    assert signatures.show_signatures([]) == 0
    assert signatures.show_signed(valid) == signatures.show_signed(valid.model_copy(update={"aliases": ["b"]})) == 0
    assert signatures.show_rotated(RotatedKey(key="cd34", trusted=["ab12", "cd34"])) == 0
    assert _lines(capsys) == [
        "no models yet; `raypath run text_classification` registers one",
        "reviews version 3: 9 files, tags and metrics are signed by ab12, and that it is champion",
        "reviews version 3: 9 files, tags and metrics are signed by ab12",
        "key cd34 signs from now on; trusted: ab12, cd34",
    ]


def test_what_replicas_report_is_one_status() -> None:
    common: dict[str, Any] = {"name": "m", "requested_at": 0.0, "requests": 0.25, "versions": {"m": 3}}
    behind = ReplicaStatus(**common, live_requests=4, canary="old")
    ahead = ReplicaStatus(**common, live_requests=9, canary="5%", shadow="agrees")
    found = services.endpoint_status("http://x", "m", 2, [behind, ahead])
    assert (found.status, found.versions, found.requests_per_second) == ("ok", [3], 0.5)
    assert [(each.role, each.text) for each in found.messages] == [("canary", "5%"), ("shadow", "agrees")]
    assert services.endpoint_status("http://x", "m", 0, []).status == "scaled to zero"
