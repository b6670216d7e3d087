"""A few hundred of the broken requests that fuzz.py sends in their hundred thousands."""

from __future__ import annotations

import random

import pytest

from tests.bench import fuzz
from tests.bench.broken import KIND, SECRET


@pytest.mark.slow
def test_broken_requests_are_refused_and_right_ones_answered() -> None:
    found = fuzz.run(600, warm=200, seed=7)
    assert found.faults == []
    assert found.sent == 600
    assert found.answers["200"] > 100
    assert found.answers["422"] > 100
    assert {"400", "404", "415"} <= set(found.answers)


@pytest.mark.parametrize("make", KIND)
def test_the_same_lot_makes_the_same_request(make) -> None:
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
        (200, b"", SECRET.encode(), ""),
    ],
)
def test_what_is_a_fault(status: int, head: bytes, body: bytes, told: str) -> None:
    assert fuzz._wrong(status, head + b"\r\n\r\n" + body) == told
