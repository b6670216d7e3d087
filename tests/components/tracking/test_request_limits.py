"""Limits of MLflow's HTTP client leave what a user has set."""

from __future__ import annotations

import os

import pytest

from raypath.components.tracking.limits import MLFLOW_LIMITS, limit_requests


def test_limits_are_set_where_the_user_has_set_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MLFLOW_LIMITS:
        monkeypatch.setenv(name, "7")
    limit_requests()
    assert {os.environ[name] for name in MLFLOW_LIMITS} == {"7"}
    for name in MLFLOW_LIMITS:
        del os.environ[name]
    limit_requests()
    assert {name: os.environ[name] for name in MLFLOW_LIMITS} == {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
