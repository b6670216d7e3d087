"""A service on Kubernetes waits for a first champion, says so once a minute, and starts with its settings."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError, Unavailable
from raypath.components.registry import client as registry
from raypath.deploy.kubernetes import serve_app
from raypath.deploy.kubernetes.serve_app import ServiceParams, _champion
from tests.tiny_classifier import tiny_classifier


class Clock:
    """Time that passes in `sleep` alone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(serve_app, "time", made)
    return made


def test_it_waits_and_logs_once_a_minute(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def resolve(uri: str, model: str, folder: Path) -> Any:
        assert (uri, model) == ("http://mlflow", "models:/shop@champion")
        passed = clock.now - 1000
        if passed < 62:
            raise (DataError if passed < 30 else Unavailable)(f"none at {passed:g}", fix="register one")
        return "shop", 3, Path("/model")

    monkeypatch.setattr(registry, "resolve", resolve)
    with caplog.at_level(logging.WARNING, "raypath"):
        assert _champion(ServiceParams(name="shop", poll_seconds=60.0), "http://mlflow") == Path("/model")
    assert clock.pauses == [5.0] * 13, "at most 5 s, so that a champion serves soon"
    assert caplog.messages == [f"waiting for a champion of shop: none at {at}" for at in (0, 60)]
    clock.now, clock.pauses = 1000.0, []
    with pytest.raises(Unavailable, match=r"shop has no champion to serve \(none at 2\); register one"):
        _champion(ServiceParams(name="shop", poll_seconds=0.5, champion_timeout=1.5), "http://mlflow")
    assert clock.pauses == [0.5] * 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.parametrize(
    ("settings", "threads"), [({"cpus": 2.5}, 2), ({"cpus": 0.5}, 1), ({}, 1), ({"threads": 3, "cpus": 2.0}, 3)]
)
def test_replicas_share_a_node_and_use_the_cpus_that_they_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, float], threads: int
) -> None:
    model = tiny_classifier(tmp_path / "model")
    monkeypatch.setattr(registry, "resolve", lambda *_: ("shop", 3, Path(model.uri)))
    given = {f"serve.{name}": value for name, value in settings.items()}
    params = {"name": "shop", "access": "/keys", "predictions": "/predictions", "serve.log_predictions": 1.0}
    application = serve_app._application(
        ServiceParams().override({**params, **given, "serve.route": "/shop"}), "http://mlflow"
    )
    [spec] = application._bound_deployment.init_args
    assert spec["serve"]["threads"] == threads
    assert (spec["url"], spec["route"]) == ("http://127.0.0.1:8000/shop", "/shop")
    assert (spec["tracking"], spec["access"], spec["predictions"]) == ("http://mlflow", "/keys", "/predictions/shop")
    assert (spec["task"], spec["poll_seconds"]) == ("text_classification", 5.0)
