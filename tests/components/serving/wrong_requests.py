"""Wrong requests to /predict of a service with the limits of tests/serving/server.py, and how each is rejected."""

from __future__ import annotations

import gzip
import json
from typing import Any, NamedTuple

import pytest


class Wrong(NamedTuple):
    """headers: beside `content-type: application/json`. told: stands in the problem's detail."""

    body: bytes
    status: int
    told: str
    headers: dict[str, str] = {}  # noqa: RUF012 - a default that nobody changes


def _json(body: Any, status: int, told: str) -> Wrong:
    return Wrong(json.dumps(body).encode(), status, told)


PREDICT = {
    "a missing field": _json({"txt": "SECRET"}, 422, "Field required"),
    "a field too many": _json({"text": "x", "SECRET": 1}, 422, "Extra inputs"),
    "an object for a text": _json({"text": {"SECRET": 1}}, 422, "valid string"),
    "no text": _json({"text": []}, 422, "at least one text"),
    "too many texts": _json({"text": ["SECRET"] * 51}, 422, "at most 50"),
    "a text too long": _json({"text": "SECRET" * 100}, 422, "600 characters; wanted at most 500"),
    "a body too large": _json({"text": "SECRET" * 20_000}, 413, "at most 100,000 bytes"),
    "a list": _json(["SECRET"], 422, "should be an object"),
    "a number too large": Wrong(b'{"text": 1e999}', 422, "valid string"),
    "another kind": Wrong(b'{"text": "SECRET"}', 415, "is not json", {"content-type": "text/plain"}),
    "compressed": Wrong(gzip.compress(b"SECRET" * 1_000_000), 415, "compressed", {"content-encoding": "gzip"}),
}
"""What only /predict takes for wrong, or says in these words."""
JSON = {
    "no body": Wrong(b"", 422, ""),
    "cut short": Wrong(b'{"text": "SECRET"', 422, ""),
    "lists too deep": Wrong(b'{"text": ' + b"[" * 90_000, 422, "nested too deep"),
    "objects too deep": Wrong(b'{"text": ' + b'{"a":' * 15_000, 422, "nested too deep"),
    "too many texts to count": Wrong(b'{"text": ["x"' + b', "x"' * 15_000, 422, "more than 464 values"),
    "too many numbers to count": Wrong(b'{"text": [1' + b",1" * 45_000, 422, "more than 464 values"),
    "too many digits": Wrong(b'{"text": ' + b"9" * 90_000 + b"}", 422, "out of range"),
    "half a character": Wrong(b'{"text": "\\ud800"}', 422, "hex escape"),
    "no UTF-8": Wrong(b'{"text": "\xff\xfe"}', 422, "unicode"),
    "no number": Wrong(b'{"text": NaN, "inputs": NaN}', 422, "valid"),
}
"""What no address of the service takes for JSON."""


def check(client: Any, wrong: Wrong, path: str = "/predict") -> None:
    """Send it with an httpx client; what comes back is a problem that repeats nothing."""
    reply = client.post(path, content=wrong.body, headers={"content-type": "application/json", **wrong.headers})
    found = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (wrong.status, "application/problem+json"), found
    assert (found["type"], found["status"]) == ("about:blank", wrong.status)
    assert found["title"]
    assert found["detail"]
    assert wrong.told in found["detail"]
    assert "SECRET" not in reply.text
    assert len(reply.content) < 4_000


def each(*tables: dict[str, Wrong]) -> pytest.MarkDecorator:
    """Parametrize a test with `wrong`."""
    found = {name: wrong for table in tables for name, wrong in table.items()}
    return pytest.mark.parametrize("wrong", found.values(), ids=found)
