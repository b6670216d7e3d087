"""Refusals as RFC 9457 problem details, which never repeat what was sent: it may be somebody's private text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from components.serving.batching import Busy

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """The body of every answer that is not a success."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None
    """Place and rule of each thing that is wrong with a request."""


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """A refusal as a response."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return Response(json.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def invalid(errors: Iterable[Any], known: Iterable[str]) -> Response:
    """HTTP 422 with the place and the rule of each error of pydantic. known: the field names that may be repeated."""
    names = set(known)

    def plain(part: str | int) -> str | int:
        # A key that the client made up is text of theirs as well.
        return part if isinstance(part, int) or part in names else "?"

    told = [{"loc": [plain(part) for part in item["loc"]], "msg": item["msg"]} for item in errors]
    first = f"{'.'.join(map(str, told[0]['loc']))}: {told[0]['msg']}" if told else "the request does not fit"
    return problem(422, first.removeprefix(": "), errors=told)


def install(api: FastAPI, known: tuple[str, ...]) -> None:
    """Let every error of an application be answered as a problem."""

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), error.headers)

    async def fields(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError | ValidationError)
        return invalid(error.errors(), known)

    async def busy(_: Request, error: Exception) -> Response:
        assert isinstance(error, Busy)
        return problem(429, f"{error}; try again", {"retry-after": str(math.ceil(error.seconds))})

    async def unforeseen(_: Request, error: Exception) -> Response:
        return problem(500, "an unforeseen error; the service's log has it")

    api.add_exception_handler(HTTPException, http)
    api.add_exception_handler(Busy, busy)
    api.add_exception_handler(RequestValidationError, fields)
    api.add_exception_handler(ValidationError, fields)
    api.add_exception_handler(Exception, unforeseen)
