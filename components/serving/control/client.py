"""HTTP client of an endpoint: health and smoke-test requests."""

from __future__ import annotations

from typing import Any

from raypath.components.tracking import http


def serves_version(url: str, name: str, version: int) -> bool:
    """Return True if /healthz reports this version, and this model unless it hides the name of a tenant's."""
    found = health(url) or {}
    return found.get("name") in (name, "") and found.get("version") == version


def health(url: str, seconds: float = 2.0) -> dict[str, Any] | None:
    """Return the response of /healthz; None if there is none or it is no JSON object."""
    return request_json(f"{url}/healthz", None, seconds)


def request_json(url: str, body: bytes | None, seconds: float, key: str = "") -> dict[str, Any] | None:
    """Send a request and parse the JSON response; None on failure, which a key for a server of another user is."""
    method = "GET" if body is None else "POST"
    try:
        if key:
            http.check_listener(url)
        found = http.send(method, url, body=body, headers=http.bearer(key), timeout=seconds, proxy=False)
    except ConnectionError:
        return None
    content = found.json() if found.ok else None
    return content if isinstance(content, dict) else None
