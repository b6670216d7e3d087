"""Kinds of requests that are told apart by their time, or not: a permutation test of medians."""

from __future__ import annotations

import http.client
import random
import statistics
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

FLOOR = 20e-6
"""Seconds of a difference that is left to the scheduler of a machine."""


def told_apart(url: str, kinds: Mapping[str, tuple[str, str]], status: int, times: int = 700) -> bool:
    """Send GET requests of these kinds in random order; return True if their times differ by more than chance makes.

    kinds: path and key by kind. status: of every response.
    """
    rng = random.Random(7)
    order = [kind for kind in kinds for _ in range(times)]
    rng.shuffle(order)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    seconds: list[tuple[str, float]] = []
    for n, kind in enumerate(order):
        path, key = kinds[kind]
        began = time.perf_counter()
        connection.request("GET", path, headers={"x-api-key": key})
        response = connection.getresponse()
        response.read()
        passed = time.perf_counter() - began
        assert response.status == status
        if n >= 100:  # the first ones warm up
            seconds.append((kind, passed))
    connection.close()
    return _spread(seconds) > max(_by_chance(seconds, rng), FLOOR)


def _spread(seconds: list[tuple[str, float]]) -> float:
    found = [statistics.median(s for k, s in seconds if k == kind) for kind in {kind for kind, _ in seconds}]
    return max(found) - min(found)


def _by_chance(seconds: list[tuple[str, float]], rng: random.Random) -> float:
    """Return a spread that random labels hardly exceed, from the spreads of 200 permutations."""
    kinds, times = [kind for kind, _ in seconds], [passed for _, passed in seconds]
    spreads = []
    for _ in range(200):
        rng.shuffle(kinds)
        spreads.append(_spread(list(zip(kinds, times, strict=True))))
    return max(*spreads, statistics.mean(spreads) + 4 * statistics.stdev(spreads))
