"""What a client may send: bounds on a request, and refusals that never repeat what was sent."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict


class Limits(BaseModel):
    """Bounds of one request and of what waits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: int
    """Texts in a request."""
    characters: int
    """Length of a text."""
    body: int
    """Bytes of a request's body."""
    seconds: float
    """From the whole request read to the answer."""
    batch: int
    """Texts in one pass through the model."""
    batch_wait: float
    """Seconds that a text waits for others."""


def guard(api: FastAPI, limits: Limits, fields: tuple[str, ...]) -> None:
    """Add the body limit and the error bodies to an application; fields: names that its requests have."""
    api.add_middleware(BodyLimit, limit=limits.body)
    api.add_exception_handler(RequestValidationError, _Unprocessable(("body", *fields)))


def check_texts(texts: list[str], limits: Limits) -> None:
    """Raise HTTP 422 for no text, too many, or one too long."""
    if not texts:
        raise HTTPException(422, "text is an empty list; wanted at least one text")
    if len(texts) > limits.items:
        raise HTTPException(422, f"{len(texts):,} texts; wanted at most {limits.items:,}")
    for n, text in enumerate(texts):
        if len(text) > limits.characters:
            raise HTTPException(422, f"text {n} has {len(text):,} characters; wanted at most {limits.characters:,}")


class BodyLimit:
    """ASGI middleware: HTTP 413 for a body over `limit` bytes, before it is read where its length is declared."""

    def __init__(self, app: Any, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif _declared(scope) > self.limit:
            await self._refusal()(scope, receive, send)
        else:
            await self.app(scope, self._counted(receive), send)

    def _counted(self, receive: Any) -> Any:
        seen = 0

        async def counted() -> Any:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                # FastAPI lets this one class of errors through while it reads a body.
                raise HTTPException(413, self._told())
            return message

        return counted

    def _refusal(self) -> JSONResponse:
        return JSONResponse({"detail": self._told()}, status_code=413)

    def _told(self) -> str:
        return f"the body is too large; wanted at most {self.limit:,} bytes"


def _declared(scope: Any) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


class _Unprocessable:
    """HTTP 422 with the place and the rule, without the value: it may be somebody's private text."""

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known

    async def __call__(self, request: Request, error: Exception) -> JSONResponse:
        found = error.errors() if isinstance(error, RequestValidationError) else []
        detail = [{"loc": [self._plain(part) for part in item["loc"]], "msg": item["msg"]} for item in found]
        return JSONResponse({"detail": detail}, status_code=422)

    def _plain(self, part: str | int) -> str | int:
        # A key that the client made up is text of theirs as well.
        return part if isinstance(part, int) or part in self.known else "?"
