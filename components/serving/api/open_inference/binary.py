"""Triton's binary extension of the Open Inference Protocol, for inputs: their elements after the JSON, in the order of
the inputs; numbers little-endian, each text preceded by its length as four little-endian bytes.

The header Inference-Header-Content-Length is the length of the JSON, an input's parameter `binary_data_size`
that of its data. Source: triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from fastapi import HTTPException, Request

from raypath.components.serving.api.body import check_shape, read_bytes
from raypath.components.serving.params import ServeParams

HEADER = "inference-header-content-length"
_TYPES = {"BOOL": "?", "FP64": "<f8", "FP32": "<f4", "FP16": "<f2"}
_TYPES |= {f"{sign}INT{8 * size}": f"<{code}{size}" for sign, code in (("", "i"), ("U", "u")) for size in (1, 2, 4, 8)}


async def read_binary(request: Request, settings: ServeParams, columns: int = 1) -> bytes:
    """Read the body and convert it to plain JSON. Raises HTTP 422, and what `read_bytes` raises.

    columns: Number of the model's inputs.
    """
    body, length = await read_bytes(request, settings, "application/octet-stream"), request.headers[HEADER]
    if not (length.isascii() and length.isdigit() and int(length[:10]) <= len(body)):
        raise HTTPException(422, f"{HEADER} is not the length of the JSON in the body")
    head, rest = body[: int(length)], body[int(length) :]
    check_shape(head, 56 + 8 * columns)
    try:
        given = json.loads(head)
        for tensor in given["inputs"]:
            if (size := tensor.get("parameters", {}).get("binary_data_size")) is None:
                continue
            part, rest = rest[:size], rest[size:]
            if isinstance(size, bool) or size < 0 or len(part) != size:
                raise ValueError("the size does not match")
            tensor["data"] = _elements(part, tensor["datatype"], settings.max_items)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HTTPException(422, "the body has no inputs with their elements in binary") from None
    if rest:
        raise HTTPException(422, f"{len(rest):,} bytes follow the inputs")
    return json.dumps(given).encode()


def _elements(part: bytes, datatype: str, most: int) -> list[Any]:
    """Decode the elements of a tensor, at most `most` + 1. Raises ValueError or KeyError for invalid bytes."""
    if datatype == "BYTES":
        return _texts(part, most)
    found: list[Any] = np.frombuffer(part, _TYPES[datatype])[: most + 1].tolist()
    return found


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
