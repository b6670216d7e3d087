"""The load client, in a process of its own: `python -m tests.bench.load LOAD.json OUT.json`.

Closed loop: each of some keep-alive clients asks again as soon as it is answered. Open loop (`rate`; flood.py):
requests leave when it is their time, answered or not, and their latency counts from that time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from pydantic import BaseModel

from tests.bench.flood import flood, requests

OK, REFUSED = "200", ("429", "503")


class Load(BaseModel):
    """What to ask, and how hard."""

    url: str
    bodies: list[str]
    """JSON, taken in turn."""
    headers: dict[str, str] = {}
    clients: int = 32
    seconds: float = 20.0
    warm: int = 64
    """Requests before the measurement that do not count."""
    rate: float = 0.0
    """Requests a second in an open loop; 0 is the closed one."""
    timeout: float = 60.0


class Seen(NamedTuple):
    """One request; times of time.perf_counter."""

    began: float
    ended: float
    status: str
    """HTTP status; timeout or connection where there was none."""
    lag: float
    """Seconds by which this client itself was late."""


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest values; nan of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def figures(seen: Sequence[Seen], began: float, seconds: float) -> dict[str, Any]:
    """Answers a second within the window, latencies in ms of all answers, also of those that came after it."""
    answered = [one for one in seen if one.status == OK]
    refused = [one for one in seen if one.status in REFUSED]
    inside = sum(one.ended <= began + seconds for one in answered)
    return {
        "sent": len(seen),
        "answered": len(answered),
        "requests_s": inside / seconds,
        **_latencies(answered),
        "errors": dict(Counter(one.status for one in seen if one.status != OK)),
        "refused": {"share": len(refused) / max(len(seen), 1), **_latencies(refused)},
        "lag_p99_ms": 1e3 * percentile([one.lag for one in seen], 0.99),
        "seconds": seconds,
    }


def _latencies(seen: Sequence[Seen]) -> dict[str, float]:
    taken = [1e3 * (one.ended - one.began) for one in seen]
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: percentile(taken, share) for name, share in shares.items()}


async def apply(load: Load) -> dict[str, Any]:
    """Warm up, ask for `seconds`, wait for what is under way."""
    if load.rate:
        made = itertools.cycle(requests(load.url, load.headers, load.bodies))
        began = time.perf_counter()
        ended = await flood(load.url, made, load.rate, load.seconds, load.timeout)
        return figures([Seen(*one) for one in ended], began, load.seconds)
    connector = aiohttp.TCPConnector(limit=0)
    limit = aiohttp.ClientTimeout(total=load.timeout)
    headers = {"Content-Type": "application/json", **load.headers}
    async with aiohttp.ClientSession(connector=connector, timeout=limit, headers=headers) as session:
        bodies = itertools.cycle(body.encode() for body in load.bodies)
        if load.warm:
            await _closed(session, load, bodies, left=load.warm)
        began = time.perf_counter()
        seen = await _closed(session, load, bodies)
    return figures(seen, began, load.seconds)


async def _closed(
    session: aiohttp.ClientSession, load: Load, bodies: Iterator[bytes], left: int | None = None
) -> list[Seen]:
    """Until the time is over, or `left` requests are sent."""
    end = time.perf_counter() + load.seconds
    numbers = itertools.count()
    seen: list[Seen] = []

    async def client() -> None:
        while next(numbers) < left if left is not None else time.perf_counter() < end:
            seen.append(await _ask(session, load.url, next(bodies), time.perf_counter()))

    await asyncio.gather(*(client() for _ in range(load.clients)))
    return seen


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes, due: float) -> Seen:
    lag = max(time.perf_counter() - due, 0.0)
    try:
        async with session.post(url, data=body) as reply:
            await reply.read()
            status = str(reply.status)
    except TimeoutError:
        status = "timeout"
    except aiohttp.ClientError:
        status = "connection"
    return Seen(due, time.perf_counter(), status, lag)


def main(given: Path, out: Path) -> None:
    """Open loops may hold thousands of connections."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = asyncio.run(apply(Load.model_validate_json(given.read_text(encoding="utf-8"))))
    out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
