"""Request bodies: read within size and time limits, and checked before parsing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from raypath.components.serving.params import ServeParams

DEPTH = 16
"""Maximum nesting of a JSON body."""
CLOSE = {"connection": "close"}
"""Header that closes the connection: the unread rest of a body would otherwise be read before the next request."""
RETRY = {"retry-after": "1"}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Beginning of a text in UTF-8 that some clients write; no part of JSON."""
_CHARSETS = {"utf8", "ascii", "usascii"}
"""Accepted charsets, without hyphens and underscores."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


async def read_body(
    request: Request, settings: ServeParams, values: int = 0, columns: int = 1, depth: int = DEPTH
) -> bytes:
    """Read the body of a JSON request.

    values: Maximum number of JSON values; 0 derives it from `max_items` and the number of input columns. depth: Maximum
    nesting. Raises HTTP 413 for a body that is too large, 415 for a compressed one or another content type, 408 on
    timeout, 422 for too many values or too deep nesting.
    """
    body = (await read_bytes(request, settings, "application/json")).removeprefix(BYTE_ORDER_MARK)
    most = values or (7 + columns) * settings.max_items + 56 + 8 * columns
    check_shape(body, most, "" if values else "serve.max_items", depth)
    return body


async def read_bytes(request: Request, settings: ServeParams, wanted: str) -> bytes:
    """Read the body of a request of this content type. Raises HTTP 408, 413, 415 as `read_body` does.

    Of one key, or one client without a key, a quarter of `max_ongoing` bodies may be arriving at a time (429).
    """
    _check_headers(request, settings, wanted)
    chunks, size = [], 0
    who, arriving = _sender(request), request.app.state.arriving
    if arriving[who] >= max(settings.max_ongoing // 4, 1):
        detail = "too many bodies of this client have not arrived (a quarter of serve.max_ongoing); try again"
        raise HTTPException(429, detail, CLOSE | RETRY)
    arriving[who] += 1
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size > settings.max_body:
                    raise HTTPException(413, _too_large(settings), CLOSE)
                chunks.append(chunk)
    except TimeoutError:
        detail = f"the body did not arrive within {settings.body_timeout:g} seconds (serve.body_timeout)"
        raise HTTPException(408, detail, CLOSE) from None
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
    kind, charset = _content_type(headers.get("content-type", wanted))
    plus = wanted.partition("/")[2]
    if (kind != wanted and not kind.endswith(f"+{plus}")) or charset not in _CHARSETS:
        raise HTTPException(415, f"the body is not {plus} in UTF-8; wanted content-type: {wanted}", CLOSE)
    declared = headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared) > settings.max_body:
        raise HTTPException(413, _too_large(settings), CLOSE)


def _content_type(header: str) -> tuple[str, str]:
    """Return media type and charset of a Content-Type; the charset without hyphens and underscores."""
    kind, *parameters = (part.strip() for part in header.lower().split(";"))
    named = {name.strip(): value.strip(" \"'") for name, _, value in (part.partition("=") for part in parameters)}
    charset = named.get("charset", "utf-8")
    return kind, charset.replace("-", "").replace("_", "")


def check_shape(body: bytes, values: int, setting: str = "", depth: int = DEPTH) -> None:
    """Raise HTTP 422 for JSON with too many values or too deep nesting, without parsing it.

    setting: Setting that limits the values, named in the error. depth: Maximum nesting.

    This is cheap compared to the parser, which creates an object for each value and an error for each invalid one.
    """
    if body.count(b",") < values and body.count(b"[") + body.count(b"{") <= depth:
        return
    bare = _STRING.sub(b"", body)
    if bare.count(b",") >= values:
        named = f"; {setting} sets this limit" if setting else ""
        raise HTTPException(422, f"more than {values:,} values in the body{named}")
    if _STEPS[np.frombuffer(bare, np.uint8)].cumsum(dtype=np.int32).max(initial=0) > depth:
        raise HTTPException(422, f"the body is nested too deep; wanted at most {depth} levels")


def check_texts(
    texts: Sequence[str], settings: ServeParams, limit: Literal["max_items", "max_embeddings"] = "max_items"
) -> None:
    """Raise HTTP 422 for no text, too many texts, or a text that is too long. limit: setting of the number of texts."""
    if not texts:
        raise HTTPException(422, "text is an empty list; wanted at least one text")
    if len(texts) > (most := getattr(settings, limit)):
        raise HTTPException(422, f"{len(texts):,} texts; wanted at most {most:,} (serve.{limit})")
    most = settings.max_characters
    for n, text in enumerate(texts):
        if len(text) > most:
            detail = f"text {n} has {len(text):,} characters; wanted at most {most:,} (serve.max_characters)"
            raise HTTPException(422, detail)


def _too_large(settings: ServeParams) -> str:
    return f"the body is too large; wanted at most {settings.max_body:,} bytes (serve.max_body)"
