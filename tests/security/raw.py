"""Requests sent byte by byte, as no client library would."""

from __future__ import annotations

import contextlib
import json
import socket
from urllib.parse import urlsplit

JSON = b"content-type: application/json\r\n"


def connect(url: str, seconds: float = 10) -> socket.socket:
    """A connection to the server of a URL."""
    place = urlsplit(url)
    return socket.create_connection((place.hostname or "", place.port or 0), timeout=seconds)


def head(method: str, path: str, key: str = "", more: bytes = b"") -> bytes:
    """The head of a request, without the line that ends it."""
    said = f"authorization: Bearer {key}\r\n".encode() if key else b""
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n".encode() + said + more


def post(path: str, body: object, key: str = "", more: bytes = b"") -> bytes:
    """A whole request with a JSON body."""
    text = json.dumps(body).encode()
    return head("POST", path, key, JSON + b"content-length: %d\r\n" % len(text) + more) + b"\r\n" + text


def ask(url: str, request: bytes) -> int:
    """The status of the answer; 0 for a connection that was closed without one."""
    return status(exchange(url, request))


def exchange(url: str, request: bytes) -> bytes:
    """All that comes back until the server closes, or within the time for one answer."""
    with connect(url) as line:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(request)
        return answer(line, bodiless=request.startswith(b"HEAD "))


def answer(line: socket.socket, bodiless: bool = False) -> bytes:
    """One answer, whole. bodiless: its length is that of a body which does not come, as with HEAD."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while not ((bodiless and b"\r\n\r\n" in found) or _whole(found)) and (more := line.recv(65_536)):
            found += more
    return found


def status(found: bytes) -> int:
    """The status of an answer; 0 for none."""
    return int(found.split(None, 2)[1]) if found else 0


def _whole(found: bytes) -> bool:
    start, end, body = found.partition(b"\r\n\r\n")
    length = start.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    return bool(end) and len(body) >= int(length or 0)
