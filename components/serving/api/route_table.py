"""Access rules of the routes: the permission that each requires, found by the route that answers a path.

A rule belongs to a route, not to the text of a path: what no route of the table matches is not forwarded to the router.
A service with a route that has no rule does not start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from raypath.components.serving.metering.roles import ADMIN, READ

PAGES = ("/", "/docs", "/openapi.json")
"""Public pages about the main model; for the holders of its keys if it belongs to a tenant."""
PUBLIC_ROUTES = ("/healthz", *PAGES, "/v2/health/live", "/v2/health/ready")
"""Routes that need no API key: a browser cannot send one with a typed URL. They reveal the model's name and the schemas
of its task only, and of a tenant's model neither; labels, metrics and predictions need a key."""
PREDICT, EMBED, CHAT = "predict", "embed", "chat"
RULES: Mapping[str, str] = {
    **dict.fromkeys(PUBLIC_ROUTES, ""),
    **dict.fromkeys(("/predict", "/models/{name}/predict"), PREDICT),
    **dict.fromkeys(("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"), PREDICT),
    **dict.fromkeys(("/encrypted", "/encrypted/keys", "/encrypted/predict"), PREDICT),
    **dict.fromkeys(("/models/{name}/encrypted", "/models/{name}/encrypted/predict"), PREDICT),
    "/v1/embeddings": EMBED,
    **dict.fromkeys(("/v1/chat/completions", "/v1/completions", "/v1/responses"), CHAT),
    **dict.fromkeys(("/card", "/models/{name}/card", "/v1/models", "/v1/models/{model}", "/usage"), READ),
    **dict.fromkeys(("/v2", "/v2/models/{model}", "/v2/models/{model}/ready"), READ),
    **dict.fromkeys(("/v2/models/{model}/versions/{version}", "/v2/models/{model}/versions/{version}/ready"), READ),
}
"""Required permission by route, "" for none (`metering/roles.py` has what each role may do)."""
UNCOUNTED = frozenset({"/encrypted/keys", "/encrypted/predict", "/models/{name}/encrypted/predict"})
"""Routes whose bodies are no texts: their length says nothing of tokens, and nothing is reserved before they count."""
_CACHED = 1_024
"""Paths whose route is remembered."""


class RouteTable:
    """Routes of an application.

    routes: Path templates such as /models/{name}/card, in the order of the router. scope: scope of the service, which a
    key without a role needs for reading.
    """

    def __init__(self, routes: Iterable[str], scope: str = PREDICT) -> None:
        self.scope = scope
        self._patterns = [(route, _pattern(route)) for route in routes]
        self.find = lru_cache(_CACHED)(self._find)
        """Return the route that answers a path, None without one."""

    def _find(self, path: str) -> str | None:
        return next((route for route, pattern in self._patterns if pattern.fullmatch(path)), None)


def routes_of(api: FastAPI, scope: str = PREDICT) -> RouteTable:
    """Return the routes of an application, in the order in which its router tries them. scope: see `RouteTable`.

    Raises ValueError for a route without a rule.
    """
    routes = [route.path for route in iter_route_contexts(api.routes) if route.path]
    if missing := sorted(set(routes) - set(RULES)):
        raise ValueError(f"routes without a rule in RULES: {', '.join(missing)}")
    return RouteTable(routes, scope)


def required_permission(route: str | None) -> str:
    """Return the permission that a route requires, "" for a public one. A path without a route is for readers."""
    return READ if route is None else RULES.get(route, ADMIN)


def _pattern(route: str) -> re.Pattern[str]:
    return re.compile("".join("[^/]+" if part[:1] == "{" else re.escape(part) for part in re.split(r"({\w+})", route)))
