"""A service that was running when it was asked for, and ends a moment later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from raypath.components.core.errors import PlatformError
from raypath.deploy.local import services
from raypath.deploy.local.state import read


def _ends(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Kill MLflow as often when `up` begins to wait for it; returns the processes that were killed."""
    killed: list[int] = []
    wait = services._wait

    def kill_and_wait(name: str, service: Any, *more: Any) -> None:
        if len(killed) < times:
            killed.append(service.pid)
            psutil.Process(service.pid).kill()
        wait(name, service, lambda process: bool(killed) and process.pid not in killed and more[0](process), more[1])

    monkeypatch.setattr(services, "_wait", kill_and_wait)
    return killed


def test_one_that_was_about_to_end_is_started_again(mlflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = services.up(mlflow_home, ray=False).mlflow
    assert first is not None
    killed = _ends(monkeypatch, 1)
    second = services.up(mlflow_home, ray=False).mlflow
    assert second is not None
    assert killed == [first.pid]
    assert second.pid != first.pid
    assert psutil.pid_exists(second.pid)


def test_one_that_ends_when_it_was_started_is_reported(mlflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services.down(mlflow_home)
    killed = _ends(monkeypatch, 1)
    with pytest.raises(PlatformError, match="MLflow ended while it started"):
        services.up(mlflow_home, ray=False)
    assert len(killed) == 1
    ended = read(mlflow_home).mlflow
    assert ended is not None
    assert ended.pid == killed[0], "it is not started again"
