"""Errors as RFC 9457 problem details. They never repeat the request, which may contain private texts.

Below /v1 and /v2 a problem has the additional member `error`, as clients of OpenAI and of the Open Inference Protocol
expect it.
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

from raypath.components.core.errors import DataError
from raypath.components.inference.dynamic_batching import QueueFull
from raypath.components.serving.metering.holder import AccessError
from raypath.components.tasks.base import Task

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 10
"""Maximum number of errors reported for one request."""
Read = TypeVar("Read", bound=BaseModel)


class Problem(BaseModel):
    """Body of every error response."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None
    """Location and rule of the first validation errors."""
    error: dict[str, Any] | str | None = None
    """The same for clients of OpenAI (an object) and of the Open Inference Protocol (a string)."""


class BadRequest(HTTPException):
    """A request that OpenAI's interface rejects with 400.

    param: the field. code: OpenAI's word for the reason, "" for none.
    """

    def __init__(self, detail: str, param: str = "", code: str = "") -> None:
        super().__init__(400, detail)
        self.param, self.code = param, code


class InvalidRequest(Exception):
    """A body that fails validation. errors: pydantic's; known: field names that may be repeated in the response."""

    def __init__(self, errors: Iterable[Any], known: Iterable[str], status: int = 422) -> None:
        super().__init__("the request is invalid")
        self.errors, self.known, self.status = list(errors), frozenset(known), status

    def details(self) -> list[dict[str, Any]]:
        """Return location and rule of the first errors."""
        return [{"loc": [self._plain(p) for p in e["loc"]], "msg": e["msg"]} for e in self.errors[:MAX_ERRORS]]

    def _plain(self, part: str | int) -> str | int:
        # A key that the client made up may contain private text.
        return part if isinstance(part, int) or part in self.known else "?"


def read(kind: type[Read], body: bytes, *names: str, status: int = 422) -> Read:
    """Validate a JSON body. names: names besides the fields' that an error may repeat. Raises InvalidRequest.

    status: of the response to an invalid body.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest(details, _names(kind).union(names), status) from None


def texts(task: Task, given: BaseModel) -> list[str]:
    """Return the inputs of a request as texts. Raises HTTP 422 for values that are not of their column's kind."""
    try:
        return task.texts(given)
    except DataError as error:
        raise HTTPException(422, f"{error.what}; {error.fix}") from None


@lru_cache(maxsize=64)
def _names(kind: type[BaseModel]) -> frozenset[str]:
    """Return the names of a model's fields, nested ones included."""
    schema = kind.model_json_schema()
    parts = (schema, *schema.get("$defs", {}).values())
    return frozenset(name for part in parts for name in part.get("properties", ()))


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, path: str = "", **more: Any
) -> Response:
    """Return an error response. path: the requested path, below the application's prefix."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    if path.startswith("/v1/"):
        body["error"] = openai_error(status, detail, more.get("errors"), body.pop("param", ""), body.pop("code", ""))
    elif path.startswith("/v2"):
        body["error"] = detail
    return Response(json.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def openai_error(
    status: int, detail: str, errors: list[dict[str, Any]] | None = None, param: str = "", code: str = ""
) -> dict[str, Any]:
    """Return an error in OpenAI's form. errors: of the validation, whose first place is the param."""
    kind = {429: "rate_limit_error", 404: "not_found_error"}.get(status)
    param = param or (".".join(map(str, errors[0]["loc"])) if errors and errors[0]["loc"] else "")
    kind = kind or ("invalid_request_error" if status < 500 else "server_error")
    code = code or ("model_not_found" if status == 404 else "")
    return {"message": detail, "type": kind, "param": param or None, "code": code or None}


def add_error_handlers(api: FastAPI) -> None:
    """Return every error of an application as a problem."""

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        named = {"param": error.param, "code": error.code} if isinstance(error, BadRequest) else {}
        return problem(error.status_code, str(error.detail), error.headers, application_path(request.scope), **named)

    async def fields(request: Request, error: Exception) -> Response:
        assert isinstance(error, InvalidRequest | RequestValidationError)
        invalid = error if isinstance(error, InvalidRequest) else InvalidRequest(error.errors(), ())
        details = invalid.details()
        first = f"{'.'.join(map(str, details[0]['loc']))}: {details[0]['msg']}" if details else str(invalid)
        detail = first.removeprefix(": ")
        return problem(invalid.status, detail, None, application_path(request.scope), errors=details)

    async def busy(request: Request, error: Exception) -> Response:
        assert isinstance(error, QueueFull)
        detail = f"{error} (serve.max_queue_seconds); try again"
        headers = {"retry-after": str(math.ceil(error.seconds))}
        return problem(429, detail, headers, application_path(request.scope))

    async def limited(request: Request, error: Exception) -> Response:
        assert isinstance(error, AccessError)
        # A request that is beyond a limit by itself is no other later.
        headers = {"retry-after": str(error.retry_after)} if error.retry_after else {"x-should-retry": "false"}
        return problem(error.status, error.reason, headers, application_path(request.scope))

    async def unexpected(request: Request, error: Exception) -> Response:
        return problem(500, "an unexpected error; see the service's log", None, application_path(request.scope))

    api.add_exception_handler(HTTPException, http)
    api.add_exception_handler(QueueFull, busy)
    api.add_exception_handler(AccessError, limited)
    api.add_exception_handler(RequestValidationError, fields)
    api.add_exception_handler(InvalidRequest, fields)
    api.add_exception_handler(Exception, unexpected)


def application_path(scope: Mapping[str, Any]) -> str:
    """Return the path below the application's prefix, as its router sees it."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :]
    return path
