"""OpenAPI document: request bodies that the routes read themselves, and error responses."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from raypath.components.serving.api.errors import MEDIA_TYPE, Problem
from raypath.components.serving.api.route_table import required_permission

DESCRIPTIONS = {
    400: "The path has control characters, the request has trailers, or the body ended early.",
    401: "The API key is missing or invalid.",
    403: "The key lacks the permission for this path.",
    404: "There is no such model or version.",
    408: "The body did not arrive in time.",
    409: "The evaluation keys are unknown.",
    413: "The body is too large.",
    414: "The URL is too long.",
    415: "The body is compressed, or has another content type.",
    422: "The request is invalid.",
    429: "The queue is full, or the key's limit is reached; Retry-After has the seconds to wait.",
    431: "Too many headers, or too large ones.",
    503: "The model cannot be loaded.",
    504: "The request timed out.",
}
BODY_ERRORS = (408, 413, 415, 422, 429, 504)
"""Errors of requests with a body."""
COMMON_ERRORS = (400, 414, 431)
"""Errors of any request."""
AUTH_ERRORS = (401, 403, 429)
"""Errors of requests with a key."""
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "X-API-Key: KEY"},
}
_AT = "#/components/schemas/"


def body_of(kind: type[BaseModel], media_type: str = "application/json") -> dict[str, Any]:
    """Describe a request body by reference to its model, which `document` has to be given."""
    content = {media_type: {"schema": {"$ref": _AT + kind.__name__}}}
    return {"requestBody": {"required": True, "content": content}}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error responses with these statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _AT + Problem.__name__}}}
    return {status: {"description": DESCRIPTIONS[status], "content": content} for status in statuses}


def document(api: FastAPI, *kinds: type[BaseModel], keys: bool = False) -> None:
    """Add these models and the common error responses to the application's OpenAPI document.

    keys: An API key is required, except for public routes.
    """
    given: list[tuple[type[BaseModel], Any]] = [(kind, "validation") for kind in kinds]
    _, found = models_json_schema([*given, (Problem, "serialization")], ref_template=_AT + "{model}")

    def openapi() -> dict[str, Any]:
        if not api.openapi_schema:
            schema = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
            schema.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
            _add_common_errors(schema, keys)
            api.openapi_schema = schema
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]


def _add_common_errors(schema: dict[str, Any], keys: bool) -> None:
    """Add the errors of the middlewares, and the security schemes."""
    if keys:
        schema["components"]["securitySchemes"] = SCHEMES
        schema["security"] = [{name: []} for name in SCHEMES]
    for path, methods in schema["paths"].items():
        authenticated = keys and bool(required_permission(path))
        for method in methods.values():
            more = {
                str(status): response
                for status, response in error_responses(*COMMON_ERRORS, *(AUTH_ERRORS if authenticated else ())).items()
            }
            method["responses"] = dict(sorted({**more, **method["responses"]}.items()))
            if keys and not authenticated:
                method["security"] = []
