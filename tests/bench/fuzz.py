"""Mutated requests at a service of a tiny model: `python -m tests.bench.fuzz --requests 100000 [--seed 0] [--front]`.

The service is the real one under uvicorn, as Ray Serve runs it, in a process of its own; with --front it asks for keys
and stands behind HAProxy, as Ray and our script set that up. Prints what came back, and
ends with 1 for any fault: a crash, an answer of 500, a refusal that is no problem or repeats a text, a wrong answer to
a right request, memory that grew by more than 5% after a warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil

from raypath.deploy.local import haproxy
from tests.bench.broken import JSON, SECRET, broken, request, with_key
from tests.deploy.local.front import front

CLIENTS = 32
EARLY = 0.05
"""Share of requests that are cut anywhere, and their connection with them."""
KEYED = 0.95
"""Share of requests that bring a key, where one is asked for."""
WAIT = 2
"""Seconds that HAProxy waits for the rest of a request, many of which never come."""
GROWTH = 1.05
ASKED = request(b"/predict", b'{"text": "a lovely cup of tea"}', JSON)
SERVER = b"Invalid HTTP request received."
"""uvicorn's own refusal of what is no HTTP; the application never sees it."""
FRONT = re.compile(rb"<html><body><h1>(400|408|413|422|501) ")
"""HAProxy's own."""


@dataclass
class Found:
    """What came back."""

    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    """Of the service, after the warm-up and at the end, in bytes."""
    seconds: float = 0.0

    @property
    def growth(self) -> float:
        """Memory at the end to that after the warm-up."""
        return self.rss[-1] / self.rss[0]


@dataclass
class Service:
    """In a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    key: bytes
    """"" where none is asked for."""
    log: Path


@contextmanager
def service(folder: Path, fronted: bool = False) -> Iterator[Service]:
    """A service; fronted: with keys and behind HAProxy."""
    log, module = folder / "log", "tests.bench.behind" if fronted else "tests.components.serving.server"
    with log.open("wb") as errors, ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(folder / "model")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port, *key = process.stdout.readline().split() or [b"0"]
            # What it logs has to go somewhere, or it waits for that.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            at = int(port)
            if fronted:
                with mock.patch.object(haproxy, "HEAD_SECONDS", WAIT):
                    at = stack.enter_context(front(folder / "ha", [at]))
            yield Service(process, at, b"".join(key), log)
        finally:
            process.stdin.close()
            process.wait(20)
            process.stdout.close()


async def fuzz(at: Service, requests: int, warm: int, seed: int) -> Found:
    """Send them from several clients at once; the first `warm` come before memory is looked at first."""
    found, memory = Found(), psutil.Process(at.process.pid)
    right = (await _exchange(at.port, with_key(ASKED, at.key)))[1]
    began = time.monotonic()
    for count in (warm, requests - warm):
        numbers = iter(range(found.sent, found.sent + count))
        await asyncio.gather(*(_client(at, numbers, seed, right, found) for _ in range(CLIENTS)))
        await asyncio.sleep(1.5)  # for what waits for the rest of a body
        found.rss.append(memory.memory_info().rss)
    found.seconds = time.monotonic() - began
    return found


async def _client(at: Service, numbers: Iterator[int], seed: int, right: bytes, found: Found) -> None:
    for number in numbers:
        rng = random.Random(seed << 32 | number)
        sent, early, checked = broken(rng), rng.random() < EARLY, number % 200 == 0
        if checked:
            sent, early = ASKED, False
        if checked or rng.random() < KEYED:
            sent = with_key(sent, at.key)
        if early:
            sent = sent[: rng.randrange(len(sent))]
        # uvicorn waits for the rest of a head without end, HAProxy for some seconds.
        early = early or b"\r\n\r\n" not in sent
        wrong = ""
        try:
            status, answer = await _exchange(at.port, sent, early)
            wrong = _wrong(status, answer) or (_another(answer, right) if checked else "")
            found.answers[str(status or "closed")] += 1
        except TimeoutError:
            wrong = "no answer"
        except ConnectionError as error:
            # A client that still sends when it is refused may be reset.
            wrong = "refused" if isinstance(error, ConnectionRefusedError) else ""
            found.answers["closed"] += 1
        found.sent += 1
        if wrong:
            found.faults.append(f"request {number}: {wrong}; {sent[:200]!r}")


def _another(answer: bytes, right: bytes) -> str:
    """Whether a prediction is another one; in bfloat16 it differs a little with who is in the batch."""
    ours, theirs = (json.loads(part.partition(b"\r\n\r\n")[2] or b"{}").get("predictions") for part in (answer, right))
    same = ours and ours[0]["label"] == theirs[0]["label"] and abs(ours[0]["score"] - theirs[0]["score"]) < 0.05
    return "" if same else "another answer than before"


def _wrong(status: int, answer: bytes) -> str:
    """What is wrong with an answer; "" for nothing."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if FRONT.match(body):
        return ""
    if status >= 500 or (status and status < 200):
        return f"status {status}"
    if status < 400 or body == SERVER or not body:
        return ""
    if SECRET.encode() in answer:
        return "a refusal repeats what was sent"
    if b"application/problem+json" not in head:
        return "a refusal is no problem"
    return "" if json.loads(body)["status"] == status else "a problem of another status"


async def _exchange(port: int, sent: bytes, early: bool = False) -> tuple[int, bytes]:
    """The first answer, without its date, and its status; 0 where the connection ended. Raises TimeoutError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # Ended by reset: a hundred thousand connections that linger would use up the ports.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        writer.write(sent)
        if early:
            await writer.drain()
            return 0, b""
        async with asyncio.timeout(15):
            return await _answer(reader, sent.startswith(b"HEAD"))
    except asyncio.IncompleteReadError:
        return 0, b""
    finally:
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, bodiless: bool) -> tuple[int, bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    if lines[0].split()[1] == b"100":
        return await _answer(reader, bodiless)
    headers = dict(line.lower().split(b": ", 1) for line in lines[1:] if line)
    length = 0 if bodiless else int(headers.get(b"content-length", 0))
    body = await reader.readexactly(length)
    kept = b"\r\n".join(line for line in lines if not line.lower().startswith(b"date:"))
    return int(lines[0].split()[1]), kept + body


def report(found: Found) -> str:
    """A few lines."""
    mib = [size / 2**20 for size in found.rss]
    lines = [
        f"{found.sent:,} requests in {found.seconds:.0f} s, {found.sent / found.seconds:.0f} a second",
        "answers: " + ", ".join(f"{status} {count:,}" for status, count in sorted(found.answers.items())),
        f"memory: {mib[0]:.1f} MiB after the warm-up, {mib[-1]:.1f} MiB at the end ({found.growth - 1:+.1%})",
        f"faults: {len(found.faults)}",
    ]
    return "\n".join([*lines, *found.faults[:20]])


def run(requests: int, warm: int, seed: int, fronted: bool = False) -> Found:
    """The whole of it; a crash and the log's tracebacks are faults too."""
    with tempfile.TemporaryDirectory(prefix="raypath-fuzz-") as place:
        with service(Path(place), fronted) as at:
            found = asyncio.run(fuzz(at, requests, warm, seed))
            if at.process.poll() is not None:
                found.faults.append(f"the service ended with {at.process.returncode}")
        told = at.log.read_text(errors="replace")
        if "Traceback" in told:
            found.faults.append(f"the log has {told.count('Traceback')} tracebacks: {told[-2_000:]}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--warm", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--front", action="store_true", help="keys, and HAProxy in front")
    given = parser.parse_args()
    result = run(given.requests, given.warm, given.seed, given.front)
    print(report(result))
    sys.exit(bool(result.faults) or result.growth > GROWTH)
