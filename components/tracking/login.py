"""Login of this process at MLflow servers: a token goes to the server that it belongs to, and to no other.

MLflow's own variables (MLFLOW_TRACKING_TOKEN) hold for every server that a process talks to, which is right for Ray's
workers and for pods. The process of a user may have another server and its credentials in its environment; there the
tokens of homes are kept beside it, and MLflow's client is given the one of the host it sends a request to.
"""

from __future__ import annotations

import base64
import os
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raypath.components.tracking import http

FIX = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
"""Remedy where a server rejects a request for its login."""
USER = "raypath"
"""User name where MLflow's client sends a token as a password."""
_PROVIDER = "raypath"
_AUTH = "MLFLOW_TRACKING_AUTH"
_tokens: dict[tuple[str, str | None, int | None], str] = {}
_installed = False


def remember(uri: str, token: str) -> None:
    """Send this token to the MLflow server at a URI."""
    _tokens[_origin(uri)] = token


def token_for(uri: str) -> str:
    """Return the token of the server at a URI, "" where none is known."""
    return _tokens.get(_origin(uri), "")


def is_foreign(uri: str) -> bool:
    """Return True if another user listens where the server of a home of this user is expected.

    A server of another user that the user has chosen has credentials of its own.
    """
    own = token_for(uri) or os.environ.get("MLFLOW_TRACKING_USERNAME") == USER
    return bool(own) and http.is_foreign(uri)


def headers(uri: str) -> dict[str, str]:
    """Return the headers that log in at the server at a URI: its token, else what the environment has.

    Raises ConnectionError for a server of another user.
    """
    if is_foreign(uri):
        raise ConnectionError("the server is another user's")
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    if user and password and not token_for(uri):
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return http.bearer(token_for(uri) or os.environ.get("MLFLOW_TRACKING_TOKEN", ""))


def variables(token: str) -> dict[str, str]:
    """Return the environment with which MLflow's client logs in, in place of credentials for another server.

    A user name and a password come before a token in MLflow, and may be set in a file of the user.
    """
    named = {"MLFLOW_TRACKING_TOKEN": token, "MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": token}
    return {**named, _AUTH: "", "MLFLOW_TRACKING_AWS_SIGV4": "false"}


def is_rejected(uri: str) -> bool:
    """Return True for a server that answers 401 to the token, or the user and password, of this environment."""
    if os.environ.get(_AUTH, "") not in ("", _PROVIDER) or Path("~/.mlflow/credentials").expanduser().exists():
        return False  # MLflow's client has others
    try:
        url = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1"
        return http.send("GET", url, headers=headers(uri), timeout=5.0).status == 401
    except ConnectionError:
        return False


def install() -> None:
    """Let MLflow's clients in this process ask for the token of each request; does nothing without tokens."""
    global _installed
    if not _tokens or _installed:
        return
    registry: Any = import_module("mlflow.tracking.request_auth.registry")
    others = os.environ.get(_AUTH, _PROVIDER)
    former = registry.fetch_auth(others) if others not in ("", _PROVIDER) else None

    class Login:
        """Set the header for servers of homes. requests removes it when it follows a redirect to another host."""

        def __call__(self, request: Any) -> Any:
            if is_foreign(request.url):
                raise ConnectionError("the server is another user's")
            if token := token_for(request.url):
                request.headers["Authorization"] = f"Bearer {token}"
                return request
            return former(request) if former else request

    class Provider:
        """Plugin of MLflow's client; see `mlflow.tracking.request_auth`."""

        def get_name(self) -> str:
            return _PROVIDER

        def get_auth(self) -> Any:
            return Login()

    registry._request_auth_provider_registry.register(Provider)
    os.environ[_AUTH] = _PROVIDER
    _installed = True


def _origin(uri: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(uri)
    return parts.scheme, parts.hostname, parts.port
