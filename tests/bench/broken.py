"""Broken requests, made by lot: what fuzz.py sends."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

SECRET = "SECRETwords"
"""Stands in every body; no refusal may repeat it."""
Headers = list[tuple[bytes, bytes]]
JSON: Headers = [(b"Host", b"x"), (b"Content-Type", b"application/json")]
ODD = (
    *(b"\xff", b"\x00", b"\\ud800", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n", "味👍".encode(), b"\\"),
    *(b'"', b"[", b"{", b"]", b"}", b",", b"{}", b"[]", b'"text":'),
    *(b"9" * 400, b"-1", b"1e999", b"NaN", b"null", b"true", b"0x1"),
)
METHODS = (
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"get",
    b"",
    b"\xff",
)
KINDS = (
    *(b"text/plain", b"", b"application/json; charset=utf-16", b"application/octet-stream", b"\xff", b"a" * 200),
    *(b"application/x-www-form-urlencoded", b"multipart/form-data", b"application/problem+json"),
)
RAYS = (
    b"X-Request-ID",
    b"X-Session-ID",
    b"X-Request-Timeout-Seconds",
    b"X-Request-Disconnect-Disabled",
    b"traceparent",
)
"""Headers that Ray reads."""
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    "x" * 600,
    [],
    {},
    [[]],
    ["a", 1],
    [[1, 2]],
    {"text": {}},
)


def bodies(rng: random.Random) -> tuple[bytes, Any, Headers]:
    """A path, a body that fits it, and its headers."""
    texts = [f"{SECRET} tea {rng.randrange(50)}" for _ in range(rng.randint(1, 4))]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    ids = [[rng.randrange(30_000) for _ in range(rng.randint(1, 20))] for _ in texts]
    embed = {"model": "m", "input": rng.choice([texts, texts[0], ids, ids[0]])}
    path, body = rng.choice(
        [
            (b"/predict", {"text": rng.choice([texts, texts[0]])}),
            (b"/models/m/predict", {"text": texts}),
            (b"/v1/embeddings", embed | {"encoding_format": rng.choice(["float", "base64"])}),
            (b"/v2/models/m/infer", {"inputs": [tensor], "id": "7"}),
            (b"/v2/models/m/versions/1/infer", {"inputs": [tensor], "outputs": [{"name": "scores"}]}),
        ]
    )
    return path, body, list(JSON)


def request(path: bytes, body: bytes, headers: Headers, method: bytes = b"POST", length: bool = True) -> bytes:
    """As it goes over the line."""
    more = [(b"Content-Length", b"%d" % len(body))] if length else []
    lines = [method + b" " + path + b" HTTP/1.1", *(name + b": " + value for name, value in [*headers, *more])]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def with_key(sent: bytes, key: bytes) -> bytes:
    """The same with a key, after its first line; without one as it is."""
    return sent.replace(b"\r\n", b"\r\nAuthorization: Bearer " + key + b"\r\n", 1) if key else sent


def whole(rng: random.Random) -> bytes:
    """A request that fits."""
    path, body, headers = bodies(rng)
    return request(path, json.dumps(body).encode(), headers)


def another_value(rng: random.Random) -> bytes:
    """JSON with a part of it replaced, left out or put in."""
    path, body, headers = bodies(rng)
    part = body
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = rng.choice(keys)
        if not isinstance(part[key], dict | list) or not part[key] or rng.random() < 0.4:
            break
        part = part[key]
    if rng.random() < 0.2 and isinstance(part, dict):
        del part[key]
    else:
        part[key] = rng.choice(VALUES)
    if rng.random() < 0.2:
        body[SECRET] = rng.choice(VALUES)
    return request(path, json.dumps(body).encode(), headers)


def bytes_changed(rng: random.Random) -> bytes:
    """A body with some of its bytes replaced, left out or doubled; its length is right."""
    path, body, headers = bodies(rng)
    return request(path, _mangled(rng, json.dumps(body).encode()), headers)


def deep_or_wide(rng: random.Random) -> bytes:
    """Many brackets, many values, long numbers."""
    path, _, headers = bodies(rng)
    unit = rng.choice([b"[", b'{"a":', b"[1,", b'{"text":[', b"[],", b"1,", b'"",', b"9", b"\\u0061", b'"\\"'])
    front = rng.choice([b"", b'{"text": ', b'{"text": ["', b'{"model": "m", "input": [', b'{"inputs": ['])
    return request(path, front + unit * rng.choice([20, 300, 8_000]), headers)


def odd_headers(rng: random.Random) -> bytes:
    """Wrong kinds, encodings and lengths, many headers, large ones, double ones."""
    path, body, headers = bodies(rng)
    text = json.dumps(body).encode()
    choice = rng.randrange(9)
    if choice == 0:
        headers = [headers[0], (b"Content-Type", rng.choice(KINDS))]
    elif choice == 1:
        headers.append((b"Content-Encoding", rng.choice([b"gzip", b"br", b"identity", b"deflate, gzip", b"\xff"])))
    elif choice == 2:
        headers += [(b"X-%d" % n, b"y") for n in range(rng.choice([50, 99, 300, 3_000]))]
    elif choice == 3:
        headers.append((rng.choice([b"X", b"Authorization", b"Cookie"]), b"z" * rng.choice([100, 30_000, 300_000])))
    elif choice == 4:
        wrong = rng.choice([b"0", b"-1", b"1e3", b"99999999999999999999", b"5, 5", b"", b"+3", b"0x5", b"4"])
        headers.append((b"Content-Length", wrong))
    elif choice == 5:
        size = rng.choice([b"%d" % len(text), b"-1", b"99999999999", b"0", b"x" * 50])
        data = struct.pack("<I", rng.choice([0, 3, 1 << 31])) + b"tea"
        name = b"Inference-Header-Content-Length"
        headers = [headers[0], (b"Content-Type", b"application/octet-stream"), (name, size)]
        return request(b"/v2/models/m/infer", text + data, headers)
    elif choice == 6:
        name = rng.choice([b"Transfer-Encoding", b"Expect", b"Upgrade", b"Connection"])
        headers.append((name, rng.choice([b"gzip", b"chunked, gzip", b"100-continue", b"websocket", b"h2c", b"close"])))
    elif choice == 7:
        headers.append((rng.choice(RAYS), rng.choice([b"\xff", b"0", b"?1", b"a" * 65, b"", _mangled(rng, b"id")])))
    else:
        headers.append((_mangled(rng, b"Accept"), _mangled(rng, b"application/json")))
    return request(path, text, headers)


def chunked(rng: random.Random) -> bytes:
    """A body in chunks, with wrong sizes now and then."""
    path, body, headers = bodies(rng)
    text, parts = json.dumps(body).encode(), b""
    while text:
        size = rng.randint(1, 40)
        told = b"%x" % (size if rng.random() < 0.95 else rng.choice([0, 5, 1 << 40]))
        parts += (told if rng.random() < 0.97 else b"zz") + b"\r\n" + text[:size] + b"\r\n"
        text = text[size:]
    headers.append((b"Transfer-Encoding", b"chunked"))
    return request(path, parts + b"0\r\n\r\n", headers, length=False)


def odd_address(rng: random.Random) -> bytes:
    """Other paths and methods, long and unprintable ones."""
    path = rng.choice(
        [b"/", b"/healthz", b"/card", b"/v1/models", b"/v2", b"/models/x/card", b"/v2/models/m", b"/docs"]
    )
    odd = [b"/models/" + b"%2e%2e%2f" * 5 + b"/card", b"/models/%ff/predict", b"*", b"http://y/"]
    longer = [path + b"/" * rng.choice([1, 9_000]), path + b"?a=\xff%ff%00", _mangled(rng, path)]
    path = rng.choice([path, *longer, *odd])
    return request(path, b"", [JSON[0]], rng.choice(METHODS))


def no_http(rng: random.Random) -> bytes:
    """Bytes that are no request, or one that was cut and mangled anywhere."""
    if rng.random() < 0.3:
        return rng.randbytes(rng.randint(1, 300)) + b"\r\n\r\n"
    return _mangled(rng, whole(rng)) + rng.choice([b"", b"\r\n\r\n"])


KIND = {
    whole: 20,
    another_value: 25,
    bytes_changed: 20,
    deep_or_wide: 8,
    odd_headers: 12,
    chunked: 5,
    odd_address: 6,
    no_http: 4,
}
"""What is sent, and its share."""


def broken(rng: random.Random) -> bytes:
    """One request of any kind, right or wrong."""
    return rng.choices(list(KIND), list(KIND.values()))[0](rng)


def _mangled(rng: random.Random, given: bytes) -> bytes:
    found = bytearray(given)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(found) + 1)
        length = rng.choice([0, 1, 1, 5, 40])
        found[place : place + length] = rng.choice([b"", rng.choice(ODD), bytes(found[place : place + length]) * 2])
    return bytes(found)
