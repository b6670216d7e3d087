"""What a client may send: bounds on a request, checked before anything of it is kept."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import HTTPException, Request
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
    patience: float
    """Seconds of work that may wait; what comes on top is refused."""


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a JSON request. Raises HTTP 413 for a long one, before it is read where its length is declared, and
    415 for one that is compressed or no JSON."""
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "the body is compressed; wanted plain JSON")
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(415, "the body is no JSON; wanted content-type: application/json")
    declared = headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limits.body:
        raise HTTPException(413, _too_large(limits))
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limits.body:
            raise HTTPException(413, _too_large(limits))
        parts.append(part)
    return b"".join(parts)


def check_texts(texts: Sequence[str], limits: Limits) -> None:
    """Raise HTTP 422 for no text, too many, or one too long."""
    if not texts:
        raise HTTPException(422, "text is an empty list; wanted at least one text")
    if len(texts) > limits.items:
        raise HTTPException(422, f"{len(texts):,} texts; wanted at most {limits.items:,}")
    for n, text in enumerate(texts):
        if len(text) > limits.characters:
            raise HTTPException(422, f"text {n} has {len(text):,} characters; wanted at most {limits.characters:,}")


def _too_large(limits: Limits) -> str:
    return f"the body is too large; wanted at most {limits.body:,} bytes"
