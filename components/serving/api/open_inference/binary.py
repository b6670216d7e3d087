"""Triton's binary extension of the Open Inference Protocol, for inputs: texts after the JSON, each preceded by its
length as four little-endian bytes.

The header Inference-Header-Content-Length is the length of the JSON, an input's parameter `binary_data_size`
that of its data. Source: triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import json
import struct

from fastapi import HTTPException, Request

from raypath.components.serving.api.body import check_shape, read_bytes
from raypath.components.serving.params import ServeParams

HEADER = "inference-header-content-length"


async def read_binary(request: Request, settings: ServeParams) -> bytes:
    """Read the body and convert it to plain JSON. Raises HTTP 422, and what `read_bytes` raises."""
    body, length = await read_bytes(request, settings, "application/octet-stream"), request.headers[HEADER]
    if not (length.isascii() and length.isdigit() and int(length[:10]) <= len(body)):
        raise HTTPException(422, f"{HEADER} is not the length of the JSON in the body")
    head, rest = body[: int(length)], body[int(length) :]
    check_shape(head, 64)
    try:
        given = json.loads(head)
        [tensor] = given["inputs"]
        size = tensor["parameters"]["binary_data_size"]
        tensor["data"] = _texts(rest, settings.max_items)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HTTPException(422, "the body is not one input with its texts in binary") from None
    if size != len(rest):
        raise HTTPException(422, f"binary_data_size does not match the {len(rest):,} bytes after the JSON")
    return json.dumps(given).encode()


def _texts(rest: bytes, most: int) -> list[str]:
    """Decode length-prefixed texts, at most `most` + 1. Raises ValueError for invalid bytes."""
    texts: list[str] = []
    offset = 0
    while offset < len(rest) and len(texts) <= most:
        if len(rest) - offset < 4:
            raise ValueError("truncated")
        [size] = struct.unpack_from("<I", rest, offset)
        offset += 4 + size
        if offset > len(rest):
            raise ValueError("truncated")
        texts.append(rest[offset - size : offset].decode("utf-8"))
    return texts
