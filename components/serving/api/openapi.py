"""How the endpoint's OpenAPI page tells of bodies that are read by hand, and of refusals."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from raypath.components.serving.api.errors import MEDIA_TYPE, Problem

OPEN = ("/healthz", "/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")
"""Answered without a key. A browser cannot send one with an address that is typed, so that the pages would be seen by
nobody. They and the interface tell no more of the model than health does, its name, and what its task takes and gives;
labels, figures and answers take a key."""
TOLD = {
    401: "No key came with it, or none that is valid here.",
    403: "The key is not for this.",
    404: "No such model or version is here.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    414: "The address is too long.",
    415: "The body is compressed, or of another kind.",
    422: "The request does not fit.",
    429: "Too much work is waiting, or the key's limit is reached; Retry-After says how many seconds to wait.",
    431: "Too many headers, or too large ones.",
    503: "The model cannot be loaded.",
    504: "No answer in time.",
}
READING = (408, 413, 415, 422, 429, 504)
"""Refusals of a request that has a body."""
ANY = (414, 431)
"""Refusals of any request."""
KEYED = (401, 403, 429)
"""Refusals of a request that takes a key."""
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "X-API-Key: KEY"},
}
_AT = "#/components/schemas/"


def body_of(kind: type[BaseModel], media_type: str = "application/json") -> dict[str, Any]:
    """A request's body as a reference to its model; `document` has to be given the model."""
    content = {media_type: {"schema": {"$ref": _AT + kind.__name__}}}
    return {"requestBody": {"required": True, "content": content}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers with these statuses, each a problem."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _AT + Problem.__name__}}}
    return {status: {"description": TOLD[status], "content": content} for status in statuses}


def document(api: FastAPI, *kinds: type[BaseModel], keys: bool = False) -> None:
    """Let the application's OpenAPI document hold these models, and the problem, beside its own.

    keys: a key is asked for, but for what is OPEN.
    """
    given: list[tuple[type[BaseModel], Any]] = [(kind, "validation") for kind in kinds]
    _, found = models_json_schema([*given, (Problem, "serialization")], ref_template=_AT + "{model}")

    def openapi() -> dict[str, Any]:
        if not api.openapi_schema:
            made = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
            made.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
            _refuse(made, keys)
            api.openapi_schema = made
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]


def _refuse(made: dict[str, Any], keys: bool) -> None:
    """Tell what is refused around the routes, and how a key is sent."""
    if keys:
        made["components"]["securitySchemes"] = SCHEMES
        made["security"] = [{name: []} for name in SCHEMES]
    for path, methods in made["paths"].items():
        keyed = keys and path not in OPEN
        for method in methods.values():
            more = {str(status): told for status, told in refusals(*ANY, *(KEYED if keyed else ())).items()}
            method["responses"] = dict(sorted({**more, **method["responses"]}.items()))
            if keys and not keyed:
                method["security"] = []
