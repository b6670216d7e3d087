"""Requests to MLflow's REST API, where importing its client would take longer than the request."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from raypath.components.core.errors import Unavailable
from raypath.components.tracking import http, login


def get(uri: str, call: str, **query: str) -> dict[str, Any]:
    """Send a GET request to MLflow's REST API; {} for what MLflow does not have. Raises Unavailable."""
    url = f"{uri.rstrip('/')}/api/2.0/mlflow/{call}?{urlencode(query)}"
    try:
        found = http.send("GET", url, headers=login.headers(uri), timeout=5.0, follow_redirects=True)
    except ConnectionError:
        raise Unavailable(f"MLflow does not respond at {uri or 'no URI'}", fix="start it with `raypath up`") from None
    if found.status in (400, 404):
        return {}
    content = found.json()
    if not found.ok or not isinstance(content, dict):
        fix = login.FIX if found.status == 401 else "see the MLflow server's log"
        raise Unavailable(f"MLflow at {uri} returned status {found.status}", fix=fix)
    return content
