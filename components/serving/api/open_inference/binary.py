"""Triton's binary extension of the Open Inference Protocol, as far as clients use it by themselves: texts behind the
JSON, each with its length in four bytes, little-endian, before it.

The header Inference-Header-Content-Length says where the JSON ends; an input's parameter `binary_data_size`, how many
bytes are its own. Source: triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import json
import struct

from fastapi import HTTPException, Request

from raypath.components.serving.api.body import check_shape, read_bytes
from raypath.components.serving.spec import Limits

HEADER = "inference-header-content-length"


async def read_binary(request: Request, limits: Limits) -> bytes:
    """The body as the JSON that it would be without the extension. Raises HTTP 422, and what `read_bytes` raises."""
    body, told = await read_bytes(request, limits, "application/octet-stream"), request.headers[HEADER]
    if not (told.isascii() and told.isdigit() and int(told[:10]) <= len(body)):
        raise HTTPException(422, f"{HEADER} is no length of the JSON in the body")
    head, rest = body[: int(told)], body[int(told) :]
    check_shape(head, 64)
    try:
        given = json.loads(head)
        [tensor] = given["inputs"]
        size = tensor["parameters"]["binary_data_size"]
        tensor["data"] = _texts(rest, limits.items)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HTTPException(422, "the body is not one input with its texts in binary") from None
    if size != len(rest):
        raise HTTPException(422, f"binary_data_size does not fit the {len(rest):,} bytes behind the JSON")
    return json.dumps(given).encode()


def _texts(rest: bytes, most: int) -> list[str]:
    """Texts, each behind its length; at most one more than `most`. Raises ValueError for bytes that are none."""
    texts: list[str] = []
    place = 0
    while place < len(rest) and len(texts) <= most:
        if len(rest) - place < 4:
            raise ValueError("cut short")
        [size] = struct.unpack_from("<I", rest, place)
        place += 4 + size
        if place > len(rest):
            raise ValueError("cut short")
        texts.append(rest[place - size : place].decode("utf-8"))
    return texts
