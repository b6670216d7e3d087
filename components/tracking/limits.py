"""Limits of MLflow's HTTP client, which retries for about four minutes by default."""

from __future__ import annotations

import os

MLFLOW_LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Environment variables of MLflow."""


def limit_requests() -> None:
    """Set the limits in the environment of this process, unless they are set."""
    for name, value in MLFLOW_LIMITS.items():
        os.environ.setdefault(name, value)
