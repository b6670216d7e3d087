"""Refusals as RFC 9457 problem details, which never repeat what was sent: it may be somebody's private text.

Below /v1 and /v2 they have a further member `error` in the form that clients of OpenAI and of the Open Inference
Protocol read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from raypath.components.inference.dynamic_batching import QueueFull

MEDIA_TYPE = "application/problem+json"
MOST = 10
"""Errors that are told of one request."""
Read = TypeVar("Read", bound=BaseModel)


class Problem(BaseModel):
    """The body of every answer that is not a success."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None
    """Place and rule of the first things that are wrong with a request."""
    error: dict[str, Any] | str | None = None
    """The same for clients of OpenAI (an object) and of the Open Inference Protocol (a text)."""


class InvalidRequest(Exception):
    """A body that does not fit. errors: of pydantic; known: the field names that may be repeated."""

    def __init__(self, errors: Iterable[Any], known: Iterable[str]) -> None:
        super().__init__("the request does not fit")
        self.errors, self.known = list(errors), frozenset(known)

    def told(self) -> list[dict[str, Any]]:
        """Place and rule of the first errors."""
        return [{"loc": [self._plain(p) for p in e["loc"]], "msg": e["msg"]} for e in self.errors[:MOST]]

    def _plain(self, part: str | int) -> str | int:
        # A key that the client made up is text of theirs as well.
        return part if isinstance(part, int) or part in self.known else "?"


def read(kind: type[Read], body: bytes, *names: str) -> Read:
    """A body in JSON as the model that is wanted. names: that may be told beside its fields'. Raises InvalidRequest."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        told = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest(told, _names(kind).union(names)) from None


@lru_cache(maxsize=64)
def _names(kind: type[BaseModel]) -> frozenset[str]:
    """The names of a model's fields, and of those within."""
    schema = kind.model_json_schema()
    parts = (schema, *schema.get("$defs", {}).values())
    return frozenset(name for part in parts for name in part.get("properties", ()))


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, path: str = "", **more: Any
) -> Response:
    """A refusal as a response. path: that was asked for, below the application's own."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    if path.startswith("/v1/"):
        body["error"] = _as_openai(status, detail, more.get("errors"))
    elif path.startswith("/v2"):
        body["error"] = detail
    return Response(json.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def _as_openai(status: int, detail: str, errors: list[dict[str, Any]] | None) -> dict[str, Any]:
    kind = {429: "rate_limit_error", 404: "not_found_error"}.get(status)
    param = ".".join(map(str, errors[0]["loc"])) if errors and errors[0]["loc"] else None
    kind = kind or ("invalid_request_error" if status < 500 else "server_error")
    return {"message": detail, "type": kind, "param": param, "code": "model_not_found" if status == 404 else None}


def install(api: FastAPI) -> None:
    """Let every error of an application be answered as a problem."""

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), error.headers, below(request.scope))

    async def fields(request: Request, error: Exception) -> Response:
        assert isinstance(error, InvalidRequest | RequestValidationError)
        invalid = error if isinstance(error, InvalidRequest) else InvalidRequest(error.errors(), ())
        told = invalid.told()
        first = f"{'.'.join(map(str, told[0]['loc']))}: {told[0]['msg']}" if told else str(invalid)
        return problem(422, first.removeprefix(": "), None, below(request.scope), errors=told)

    async def busy(request: Request, error: Exception) -> Response:
        assert isinstance(error, QueueFull)
        return problem(429, f"{error}; try again", {"retry-after": str(math.ceil(error.seconds))}, below(request.scope))

    async def unforeseen(request: Request, error: Exception) -> Response:
        return problem(500, "an unforeseen error; the service's log has it", None, below(request.scope))

    api.add_exception_handler(HTTPException, http)
    api.add_exception_handler(QueueFull, busy)
    api.add_exception_handler(RequestValidationError, fields)
    api.add_exception_handler(InvalidRequest, fields)
    api.add_exception_handler(Exception, unforeseen)


def below(scope: Mapping[str, Any]) -> str:
    """The path that is asked for, below the application's own."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
