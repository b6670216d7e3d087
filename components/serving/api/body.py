"""What a client may send: bounds on a request, checked before anything of it is kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import numpy as np
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from raypath.components.serving.spec import Limits

DEPTH = 16
"""Brackets within brackets in a body."""
CLOSE = {"connection": "close"}
"""What is left of a body that was not read would otherwise be read before the next request."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


async def read_body(request: Request, limits: Limits, values: int = 0) -> bytes:
    """The body of a JSON request, in bounds. values: that may stand in it, 0 for what texts take.

    Raises HTTP 413 for a long one, before it is read where its length is declared, 415 for one that is compressed or no
    JSON, 408 for one that does not arrive, 422 for one with too many values or too deep.
    """
    body = await read_bytes(request, limits, "application/json")
    check_shape(body, values or 8 * limits.items + 64)
    return body


async def read_bytes(request: Request, limits: Limits, wanted: str) -> bytes:
    """The body of a request with this content type. Raises HTTP 408, 413, 415 as `read_body` does."""
    _check_headers(request, limits, wanted)
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.arrival):
            async for part in request.stream():
                size += len(part)
                if size > limits.body:
                    raise HTTPException(413, _too_large(limits), CLOSE)
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {limits.arrival:g} seconds", CLOSE) from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended early", CLOSE) from None
    return b"".join(parts)


def _check_headers(request: Request, limits: Limits, wanted: str) -> None:
    """Raise HTTP 415 for a body of another kind, 413 for one that is declared too large."""
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, f"the body is compressed; wanted plain {wanted}", CLOSE)
    kind, _, more = headers.get("content-type", wanted).lower().partition(";")
    charset = more.strip().removeprefix("charset=").strip('"') if "charset=" in more else "utf-8"
    plus = wanted.partition("/")[2]
    if (kind.strip() != wanted and not kind.strip().endswith(f"+{plus}")) or charset not in ("utf-8", "us-ascii"):
        raise HTTPException(415, f"the body is no {plus} in UTF-8; wanted content-type: {wanted}", CLOSE)
    declared = headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limits.body:
        raise HTTPException(413, _too_large(limits), CLOSE)


def check_shape(body: bytes, values: int) -> None:
    """Raise HTTP 422 for JSON with more than so many values or brackets too deep; what is in strings does not count.

    It is cheap beside the parser, which makes an object of each value, and an error of each wrong one.
    """
    if body.count(b",") < values and body.count(b"[") + body.count(b"{") <= DEPTH:
        return
    bare = _STRING.sub(b"", body)
    if bare.count(b",") >= values:
        raise HTTPException(422, f"more than {values:,} values in the body")
    if _STEPS[np.frombuffer(bare, np.uint8)].cumsum(dtype=np.int32).max(initial=0) > DEPTH:
        raise HTTPException(422, f"the body is nested too deep; wanted at most {DEPTH} levels")


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
