"""HTTP client of an endpoint: health and a smoke-test prediction."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def serves_version(url: str, name: str, version: int) -> bool:
    """Whether /healthz tells this model and version."""
    found = health(url) or {}
    return (found.get("name"), found.get("version")) == (name, version)


def health(url: str, seconds: float = 2.0) -> dict[str, Any] | None:
    """What /healthz says; None when nothing or something else answers."""
    return _ask(f"{url}/healthz", None, seconds)


def predict(url: str, request: dict[str, Any], seconds: float, key: str = "") -> dict[str, Any] | None:
    """The answer to one request of the task, asked with this key; None when it failed."""
    return _ask(f"{url}/predict", json.dumps(request).encode(), seconds, key)


def _ask(address: str, body: bytes | None, seconds: float, key: str = "") -> dict[str, Any] | None:
    # Straight to the endpoint: a proxy for the outside world has no business with it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(address, body, headers)
    try:
        with opener.open(request, timeout=seconds) as reply:
            found = json.load(reply)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
