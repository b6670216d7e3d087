"""A few hundred of the broken requests that fuzz.py sends in their hundred thousands."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from raypath.deploy.local import haproxy
from tests.bench import fuzz
from tests.bench.broken import JSON, KIND, SECRET, request, with_key


@pytest.mark.slow
@pytest.mark.parametrize("fronted", [pytest.param(False, marks=pytest.mark.heavy), True])
def test_broken_requests_are_refused_and_right_ones_answered(fronted: bool) -> None:
    if fronted and haproxy._binary() is None:
        pytest.skip("Ray brings HAProxy for Linux")
    found = fuzz.run(600, warm=200, seed=7, fronted=fronted)
    assert found.faults == []
    assert found.growth < fuzz.GROWTH
    assert found.sent == 600
    assert found.answers["200"] > 100
    assert found.answers["422"] > 100
    assert {"400", "404", "415"} <= set(found.answers)
    assert (found.answers["401"] > 10) == fronted


@pytest.mark.parametrize("make", KIND)
def test_the_same_lot_makes_the_same_request(make: Callable[[random.Random], bytes]) -> None:
    made = {make(random.Random(seed)) for seed in (1, 1, 2, 3)}
    assert 2 <= len(made) <= 3


@pytest.mark.parametrize(
    ("status", "head", "body", "told"),
    [
        (500, b"", b"{}", "status 500"),
        (422, b"", b'{"status": 422}', "a refusal is no problem"),
        (422, b"content-type: application/problem+json", b'{"status": 400}', "a problem of another status"),
        (422, b"content-type: application/problem+json", SECRET.encode(), "a refusal repeats what was sent"),
        (422, b"content-type: application/problem+json", b'{"status": 422}', ""),
        (400, b"content-type: text/plain", fuzz.SERVER, ""),
        (408, b"", b"<html><body><h1>408 Request Time-out</h1>", ""),
        (503, b"", b"<html><body><h1>503 Service Unavailable</h1>", "status 503"),
        (200, b"", SECRET.encode(), ""),
    ],
)
def test_what_is_a_fault(status: int, head: bytes, body: bytes, told: str) -> None:
    assert fuzz._wrong(status, head + b"\r\n\r\n" + body) == told


def test_a_key_is_put_into_the_head() -> None:
    made = with_key(request(b"/predict", b"a\r\nb", JSON), b"KEY")
    assert made.count(b"\r\nAuthorization: Bearer KEY\r\nHost: x\r\n") == 1
    assert made.endswith(b"\r\n\r\na\r\nb")
    assert with_key(made, b"") == made
