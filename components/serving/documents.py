"""How the endpoint's OpenAPI page tells of bodies that are read by hand, and of refusals."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from components.serving.problems import MEDIA_TYPE, Problem

TOLD = {
    404: "No such model or version is here.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is compressed, or of another kind.",
    422: "The request does not fit.",
    429: "Too much work is waiting; Retry-After says how many seconds.",
    503: "The model cannot be loaded.",
    504: "No answer in time.",
}
READING = (408, 413, 415, 422, 429, 504)
"""Refusals of a request that has a body."""
_AT = "#/components/schemas/"


def body_of(kind: type[BaseModel], media_type: str = "application/json") -> dict[str, Any]:
    """A request's body as a reference to its model; `document` has to be given the model."""
    content = {media_type: {"schema": {"$ref": _AT + kind.__name__}}}
    return {"requestBody": {"required": True, "content": content}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers with these statuses, each a problem."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _AT + Problem.__name__}}}
    return {status: {"description": TOLD[status], "content": content} for status in statuses}


def document(api: FastAPI, *kinds: type[BaseModel]) -> None:
    """Let the application's OpenAPI document hold these models, and the problem, beside its own."""
    given: list[tuple[type[BaseModel], Any]] = [(kind, "validation") for kind in kinds]
    _, found = models_json_schema([*given, (Problem, "serialization")], ref_template=_AT + "{model}")

    def openapi() -> dict[str, Any]:
        if not api.openapi_schema:
            made = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
            made.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
            api.openapi_schema = made
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
