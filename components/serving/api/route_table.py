"""Access rules of the routes: the scope that each route requires, found by the route that answers a path.

A rule belongs to a route, not to the text of a path: what no route of the table matches is not forwarded to the router.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

PUBLIC_ROUTES = ("/healthz", "/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")
"""Routes that need no API key: a browser cannot send one with a typed URL. They reveal the model's name and the schemas
of its task only; labels, metrics and predictions need a key."""
EMBED, CHAT = "embed", "chat"
SCOPES: Mapping[str, str] = {
    "/v1/embeddings": EMBED,
    **dict.fromkeys(("/v1/chat/completions", "/v1/completions", "/v1/responses"), CHAT),
}
"""Required scope by route; any other route, and a path without a route, requires that of the service."""
PREDICT = "predict"
_CACHED = 1_024
"""Paths whose route is remembered."""


class RouteTable:
    """Routes of an application with the scope that each requires.

    routes: Path templates such as /models/{name}/card, in the order of the router. scope: required by routes without
    one of their own.
    """

    def __init__(self, routes: Iterable[str], scope: str = PREDICT) -> None:
        self.scope = scope
        self._patterns = [(route, _pattern(route)) for route in routes]
        self.find = lru_cache(_CACHED)(self._find)
        """Return the route that answers a path, None without one."""

    def _find(self, path: str) -> str | None:
        return next((route for route, pattern in self._patterns if pattern.fullmatch(path)), None)


def routes_of(api: FastAPI, scope: str = PREDICT) -> RouteTable:
    """Return the routes of an application, in the order in which its router tries them. scope: see `RouteTable`."""
    return RouteTable((route.path for route in iter_route_contexts(api.routes) if route.path), scope)


def required_scope(route: str | None, other: str = PREDICT) -> str:
    """Return the scope that a route requires, "" for a public one. other: of routes without one of their own."""
    return "" if route in PUBLIC_ROUTES else SCOPES.get(route or "", other)


def _pattern(route: str) -> re.Pattern[str]:
    return re.compile("".join("[^/]+" if part[:1] == "{" else re.escape(part) for part in re.split(r"({\w+})", route)))
