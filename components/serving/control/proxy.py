"""Ray Serve's proxy: start it, find its address and the routes that are in use."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from raypath.components.core.errors import PlatformError, UserError
from raypath.components.core.files import write_atomically
from raypath.components.core.uris import LOOPBACK
from raypath.components.serving.control.client import _ask

if TYPE_CHECKING:
    pass


DEFAULT_URL = "http://127.0.0.1:8000"


_ROUTE = "set another one with -s serve.route=/..."


def start(url: str, request_seconds: float) -> None:
    """Start Serve with its proxy at `url`, if none runs on this Ray. Raises PlatformError when the port is taken.

    A proxy on loopback runs on the head only; on another address on every node that has a replica.
    """
    from ray import serve

    if is_running():
        return
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    if _taken(host, port):
        raise PlatformError(
            f"port {port} on {host} is in use by another program", fix="stop it, or choose another port"
        )
    serve.start(
        proxy_location="HeadOnly" if host in LOOPBACK else "EveryNode",
        http_options={"host": host, "port": port, "request_timeout_s": request_seconds},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )


def is_running() -> bool:
    """Whether this Ray has a Serve controller."""
    import ray

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def write_request_limit(name: str, most: int) -> None:
    """Leave for HAProxy how many requests a replica of this application takes, where Ray runs one (haproxy.sh)."""
    config = Path(os.environ.get("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", ""))
    if config.name and config.parent.is_dir():
        write_atomically(config.with_name(f"{name}.ongoing"), f"{most}\n")


def choose_route(base: str, name: str, wanted: str | None) -> str:
    """Where a model goes: where it was told to; else where it is, else / while that is free, else /NAME.

    Raises UserError when another model holds the route that was asked for. Serve has to run at `base`.
    """
    held = {app: route for route, app in (_ask(f"{base}/-/routes", None, 5.0) or {}).items()}
    route = wanted or held.get(name) or (f"/{name}" if "/" in held.values() else "/")
    holder = next((app for app, taken in held.items() if taken == route and app != name), None)
    if holder is not None:
        raise UserError(f"{name} cannot be served at {route}, where {holder} is", fix=_ROUTE)
    return route


def has_route(url: str, name: str) -> bool:
    """Whether the proxy at this address has an application for it, whose replicas it does not ask."""
    parts = urlsplit(url)
    routes = _ask(f"{parts.scheme}://{parts.netloc}/-/routes", None, 2.0) or {}
    return routes.get(parts.path or "/") == name


def check_public_access(address: str, access: str) -> None:
    """Raise UserError for an endpoint that other machines could ask without a key, or without TLS."""
    parts = urlsplit(address)
    if parts.hostname in LOOPBACK:
        return
    if not access:
        raise UserError(
            f"{address} is beyond this machine, and no key would be asked for", fix="leave serve.open unset"
        )
    if parts.scheme != "https":
        raise UserError(f"{address} is beyond this machine, and not https", fix="raypath up --listen ... --tls ...")


def _taken(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False
