"""The clients, in a process of their own: `python -m tests.bench.generate.client LOAD.json OUT.json`.

Each client sends a request, reads its stream, and sends the next, until all are sent; what is open after `seconds` is
closed, and counts as far as it came. Bytes are kept as they come and parsed afterwards, since the clients take their
time from the same cores.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
from pydantic import BaseModel

from tests.bench.load import percentile


class StreamLoad(BaseModel):
    """Requests and what they are sent to. seconds: after which open streams are closed. tokenizer: file that counts
    the tokens of a text."""

    url: str
    bodies: list[str]
    headers: dict[str, str] = {}
    clients: int
    seconds: float
    tokenizer: str


@dataclass
class Stream:
    """One response; times of perf_counter. status: HTTP status, `open` if it was closed, else an error's name."""

    began: float
    parts: list[tuple[float, bytes]] = field(default_factory=list)
    status: str = "open"

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """Yield the lines, each with the time when it was complete."""
        rest = b""
        for when, part in self.parts:
            *whole, rest = (rest + part).split(b"\n")
            yield from ((when, line) for line in whole)

    def texts(self) -> tuple[list[float], str]:
        """Return the times of the events that have text, and all of it."""
        times, found = [], []
        for when, line in self.lines():
            if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                continue
            event = json.loads(line[5:])
            if "error" in event:
                self.status = "error event"
            for choice in event.get("choices", ()):
                if text := choice.get("delta", {}).get("content"):
                    times.append(when)
                    found.append(text)
        return times, "".join(found)


async def run(load: StreamLoad) -> tuple[list[Stream], float]:
    """Send the requests. Returns the streams, and the seconds until the last of them ended or was closed."""
    left, streams = list(reversed(load.bodies)), []
    limit = aiohttp.ClientTimeout(total=None)
    headers = {"Content-Type": "application/json", **load.headers}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=limit, headers=headers, read_bufsize=1 << 20
    ) as session:

        async def client() -> None:
            while left:
                body = left.pop()
                streams.append(stream := Stream(perf_counter()))
                await _read(session, load.url, body.encode(), stream)

        start = perf_counter()
        _, still = await asyncio.wait(
            [asyncio.create_task(client()) for _ in range(load.clients)], timeout=load.seconds
        )
        seconds = perf_counter() - start
        for task in still:
            task.cancel()
        await asyncio.gather(*still, return_exceptions=True)
    return streams, seconds


async def _read(session: aiohttp.ClientSession, url: str, body: bytes, stream: Stream) -> None:
    try:
        async with session.post(url, data=body) as reply:
            async for part in reply.content.iter_any():
                stream.parts.append((perf_counter(), part))
            stream.status = str(reply.status)
    except aiohttp.ClientError as error:
        stream.status = type(error).__name__


def figures(streams: list[Stream], seconds: float, count: Any) -> dict[str, Any]:
    """Return what a cell has measured.

    tokens_s: new tokens of all streams a second. first_*: ms to the first text; a stream without one counts with the
    time that it was open. token_ms: median over the streams of the ms between tokens. count: tokens of a text.
    """
    firsts, gaps, tokens, waiting = [], [], 0, 0
    status: dict[str, int] = {}
    for stream in streams:
        times, text = stream.texts()
        made = count(text) if text else 0
        tokens += made
        end = times[0] if times else streams[0].began + seconds
        waiting += not times
        firsts.append(1e3 * (end - stream.began))
        if made > 1 and len(times) > 1:
            gaps.append(1e3 * (times[-1] - times[0]) / (made - 1))
        if stream.status not in ("200", "open"):
            status[stream.status] = status.get(stream.status, 0) + 1
    return {
        "tokens_s": tokens / seconds,
        "first_p50_ms": percentile(firsts, 0.5),
        "first_p95_ms": percentile(firsts, 0.95),
        "token_ms": percentile(gaps, 0.5) if gaps else None,
        "tokens": tokens,
        "seconds": seconds,
        "complete": sum(stream.status == "200" for stream in streams),
        "without_text": waiting,
        "sent": len(streams),
        "errors": status,
    }


def main(given: Path, out: Path) -> None:
    """Run a load and write its figures."""
    from tokenizers import Tokenizer

    load = StreamLoad.model_validate_json(given.read_text(encoding="utf-8"))
    streams, seconds = asyncio.run(run(load))
    tokenizer = Tokenizer.from_file(load.tokenizer)
    made = figures(streams, seconds, lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids))
    out.write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
