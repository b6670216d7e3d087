"""Ray Serve's HTTP proxy: start it, and find free routes."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raypath.components.core.errors import PlatformError, UserError
from raypath.components.core.files import write_atomically
from raypath.components.core.uris import LOOPBACK
from raypath.components.models import bf16
from raypath.components.serving.control.client import request_json

DEFAULT_URL = "http://127.0.0.1:8000"
REQUEST_SECONDS = 3_600.0
"""Least seconds after which Serve's servers end a request, whose limit the replicas enforce: the server is shared by
endpoints that come later, such as one whose streams take minutes."""
ROUTE_FIX = "set another one with -s serve.route=/..."


def start(url: str, request_seconds: float) -> None:
    """Start Serve with its proxy at `url`, if none runs on this Ray. Raises PlatformError when the port is taken.

    A proxy on loopback runs on the head only; on another host on every node with a replica.
    """
    from ray import serve

    if is_running():
        return
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    if _in_use(host, port):
        raise PlatformError(
            f"port {port} on {host} is in use by another program", fix="stop it, or choose another port"
        )
    serve.start(
        proxy_location="HeadOnly" if host in LOOPBACK else "EveryNode",
        http_options={"host": host, "port": port, "request_timeout_s": max(request_seconds, REQUEST_SECONDS)},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        controller_options=_controller_options(),
    )


def _controller_options() -> dict[str, Any] | None:
    """Return options that keep this step's precision from the controller: replicas of later steps inherit from it."""
    if not bf16.passed_environment():
        return None
    return {"runtime_env": {"env_vars": {bf16.VARIABLE: ""}}}


def is_running() -> bool:
    """Return True if this Ray cluster has a Serve controller."""
    import ray

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def write_request_limits(name: str, most: int, body_seconds: int) -> None:
    """Write limits of an application for HAProxy, if Ray runs one (haproxy.sh).

    most: Ongoing requests of a replica. body_seconds: Time for a body to arrive.
    """
    config = Path(os.environ.get("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", ""))
    if config.name and config.parent.is_dir():
        write_atomically(config.with_name(f"{name}.ongoing"), f"{most}\n")
        write_atomically(config.with_name(f"{name}.body"), f"{body_seconds}\n")


def choose_route(base: str, name: str, wanted: str | None) -> str:
    """Return the route of a model: the wanted one, else its current one, else / if free, else /NAME.

    Raises UserError if another model has the wanted route. Serve has to run at `base`.
    """
    routes = {app: route for route, app in (request_json(f"{base}/-/routes", None, 5.0) or {}).items()}
    route = wanted or routes.get(name) or (f"/{name}" if "/" in routes.values() else "/")
    holder = next((app for app, taken in routes.items() if taken == route and app != name), None)
    if holder is not None:
        raise UserError(f"{name} cannot be served at {route}, where {holder} is", fix=ROUTE_FIX)
    return route


def has_route(url: str, name: str) -> bool:
    """Return True if the proxy at this URL has a route for the application; queries no replica."""
    parts = urlsplit(url)
    routes = request_json(f"{parts.scheme}://{parts.netloc}/-/routes", None, 2.0) or {}
    return routes.get(parts.path or "/") == name


def check_public_access(url: str, access: str) -> None:
    """Raise UserError for an endpoint that other machines could reach without a key or without TLS."""
    parts = urlsplit(url)
    if parts.hostname in LOOPBACK:
        return
    if not access:
        raise UserError(
            f"{url} is reachable from other machines, and no key would be required", fix="leave serve.open unset"
        )
    if parts.scheme != "https":
        raise UserError(
            f"{url} is reachable from other machines, and not https", fix="raypath up --listen ... --tls ..."
        )


def _in_use(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False
