"""An open loop that costs little itself: arrivals by chance on kept connections, bytes in and bytes out.

What asks shares its cores with what is asked. A full HTTP client takes half a millisecond of them for a request; at
thousands a second it would measure itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

End = tuple[float, float, str, float]
"""When a request was due and when it ended, on the clock of `time.perf_counter`; its status; how late it was sent."""


@dataclass
class Flood:
    """Where it goes, and what came back."""

    host: str
    port: int
    ended: list[End] = field(default_factory=list)
    idle: list[Line] = field(default_factory=list)
    under_way: set[Line] = field(default_factory=set)


class Line(asyncio.Protocol):
    """A connection that has at most one request under way."""

    def __init__(self, flood: Flood) -> None:
        self.flood = flood
        self.came, self.due, self.lag = b"", 0.0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, due: float) -> None:
        """Send a request that was due at this time."""
        self.due, self.lag, self.came = due, max(time.perf_counter() - due, 0.0), b""
        self.flood.under_way.add(self)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.came += data
        head, found, body = self.came.partition(b"\r\n\r\n")
        if found and len(body) >= _length(head):
            self.end(head[9:12].decode())
            if b"\r\nconnection: close" in head.lower():
                self.transport.close()
            else:
                self.flood.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.flood.under_way:
            self.end("connection")
        if self in self.flood.idle:
            self.flood.idle.remove(self)

    def end(self, status: str) -> None:
        """Note how the request ended."""
        self.flood.under_way.discard(self)
        self.flood.ended.append((self.due, time.perf_counter(), status, self.lag))


def _length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def requests(url: str, headers: dict[str, str], bodies: Sequence[str]) -> list[bytes]:
    """The bytes of a POST of each body."""
    parts = urlsplit(url)
    fields = {"host": parts.netloc, "content-type": "application/json", **headers}
    head = f"POST {parts.path or '/'} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    made = (body.encode() for body in bodies)
    return [head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body for body in made]


async def flood(url: str, made: Iterator[bytes], rate: float, seconds: float, timeout: float) -> list[End]:
    """Send `rate` requests a second on average, the same arrivals every time; wait at most `timeout` for the last."""
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    all_of = Flood(parts.hostname or "127.0.0.1", parts.port or 80)
    rng, due = random.Random(0), time.perf_counter()
    end, opening = due + seconds, set()
    while (due := due + rng.expovariate(rate)) < end:
        if (early := due - time.perf_counter()) > 0.001:
            await asyncio.sleep(early)
        elif len(all_of.ended) % 8 == 0:
            await asyncio.sleep(0)
        request = next(made)
        if all_of.idle:
            all_of.idle.pop().ask(request, due)
        else:
            task = loop.create_task(_opened(all_of, request, due))
            opening.add(task)
            task.add_done_callback(opening.discard)
    last = time.perf_counter() + timeout
    while (all_of.under_way or opening) and time.perf_counter() < last:
        await asyncio.sleep(0.05)
    for line in list(all_of.under_way):
        line.end("timeout")
    for line in all_of.idle:
        line.transport.close()
    return all_of.ended


async def _opened(all_of: Flood, request: bytes, due: float) -> None:
    try:
        _, line = await asyncio.get_running_loop().create_connection(lambda: Line(all_of), all_of.host, all_of.port)
    except OSError:
        all_of.ended.append((due, time.perf_counter(), "connection", 0.0))
    else:
        line.ask(request, due)
