"""Request bodies: read within size and time limits, and checked before parsing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import numpy as np
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from raypath.components.serving.params import ServeParams

DEPTH = 16
"""Maximum nesting of a JSON body."""
CLOSE = {"connection": "close"}
"""Header that closes the connection: the unread rest of a body would otherwise be read before the next request."""
RETRY = {"retry-after": "1"}
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


async def read_body(request: Request, settings: ServeParams, values: int = 0) -> bytes:
    """Read the body of a JSON request.

    values: Maximum number of JSON values; 0 derives it from `max_items`. Raises HTTP 413 for a body that is too large,
    415 for a compressed one or another content type, 408 on timeout, 422 for too many values or too deep nesting.
    """
    body = await read_bytes(request, settings, "application/json")
    check_shape(body, values or 8 * settings.max_items + 64)
    return body


async def read_bytes(request: Request, settings: ServeParams, wanted: str) -> bytes:
    """Read the body of a request of this content type. Raises HTTP 408, 413, 415 as `read_body` does.

    Of one key, or one client without a key, a quarter of `max_ongoing` bodies may be arriving at a time (429).
    """
    _check_headers(request, settings, wanted)
    chunks, size = [], 0
    who, arriving = _sender(request), request.app.state.arriving
    if arriving[who] >= max(settings.max_ongoing // 4, 1):
        raise HTTPException(429, "too many bodies of this client have not arrived; try again", CLOSE | RETRY)
    arriving[who] += 1
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size > settings.max_body:
                    raise HTTPException(413, _too_large(settings), CLOSE)
                chunks.append(chunk)
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {settings.body_timeout:g} seconds", CLOSE) from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended early", CLOSE) from None
    finally:
        arriving[who] -= 1
        if not arriving[who]:
            del arriving[who]
    return b"".join(chunks)


def _sender(request: Request) -> str:
    """Return the id of a request's key; of one without a key, the address of its client."""
    key: str = request.scope.get("raypath.key", "")
    return key or (request.client.host if request.client else "")


def _check_headers(request: Request, settings: ServeParams, wanted: str) -> None:
    """Raise HTTP 415 for another content type, 413 for a declared length that is too large."""
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, f"the body is compressed; wanted plain {wanted}", CLOSE)
    kind, _, more = headers.get("content-type", wanted).lower().partition(";")
    charset = more.strip().removeprefix("charset=").strip('"') if "charset=" in more else "utf-8"
    plus = wanted.partition("/")[2]
    if (kind.strip() != wanted and not kind.strip().endswith(f"+{plus}")) or charset not in ("utf-8", "us-ascii"):
        raise HTTPException(415, f"the body is not {plus} in UTF-8; wanted content-type: {wanted}", CLOSE)
    declared = headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared) > settings.max_body:
        raise HTTPException(413, _too_large(settings), CLOSE)


def check_shape(body: bytes, values: int) -> None:
    """Raise HTTP 422 for JSON with too many values or too deep nesting, without parsing it.

    This is cheap compared to the parser, which creates an object for each value and an error for each invalid one.
    """
    if body.count(b",") < values and body.count(b"[") + body.count(b"{") <= DEPTH:
        return
    bare = _STRING.sub(b"", body)
    if bare.count(b",") >= values:
        raise HTTPException(422, f"more than {values:,} values in the body")
    if _STEPS[np.frombuffer(bare, np.uint8)].cumsum(dtype=np.int32).max(initial=0) > DEPTH:
        raise HTTPException(422, f"the body is nested too deep; wanted at most {DEPTH} levels")


def check_texts(texts: Sequence[str], settings: ServeParams) -> None:
    """Raise HTTP 422 for no text, too many texts, or a text that is too long."""
    if not texts:
        raise HTTPException(422, "text is an empty list; wanted at least one text")
    if len(texts) > settings.max_items:
        raise HTTPException(422, f"{len(texts):,} texts; wanted at most {settings.max_items:,}")
    for n, text in enumerate(texts):
        if len(text) > settings.max_characters:
            raise HTTPException(
                422, f"text {n} has {len(text):,} characters; wanted at most {settings.max_characters:,}"
            )


def _too_large(settings: ServeParams) -> str:
    return f"the body is too large; wanted at most {settings.max_body:,} bytes"
