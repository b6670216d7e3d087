"""A language model's endpoint under load: `python -m tests.bench.generation_load overload|mixed --help`.

overload: closed clients measure the capacity, responses a second; then requests arrive at a multiple of it, as by
chance. Goodput is the share of the capacity that is still answered completely within the deadline. Refused requests are
429 and 503.
mixed: streams, whole responses, clients that leave, invalid requests and prompts of many lengths, for as long as is
wanted; the memory of the server's processes is measured, and its slope after the first fifth is printed.

Without --url a tiny model (or that of --folder) is served by a process of its own, without Ray.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import psutil

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


class Target(NamedTuple):
    """An endpoint. pids: processes whose memory is measured."""

    url: str
    key: str
    model: str
    pids: tuple[int, ...]


class Asked(NamedTuple):
    """What came of a request. status: 0 for a broken connection, 408 for one that was given up at the deadline."""

    status: int
    seconds: float
    complete: bool


def body_of(target: Target, rng: random.Random, tokens: int, stream: bool = True, words: int = 12) -> bytes:
    """A request with its own prompt."""
    text = " ".join(rng.choice(("bird", "strike", "tea", "on", "final", "gull", "damage")) for _ in range(words))
    given = {"model": target.model, "messages": [{"role": "user", "content": text}]}
    return json.dumps(given | {"stream": stream, "max_tokens": tokens}).encode()


async def ask(target: Target, body: bytes, deadline: float, leave: bool = False) -> Asked:
    """Send a request on a connection of its own. leave: close it after the first bytes of the response."""
    parts, began = urlsplit(target.url), time.perf_counter()
    head = f"POST {parts.path}/v1/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\nauthorization: Bearer {target.key}\r\ncontent-length: {len(body)}\r\n"
    found = bytearray()
    try:
        async with asyncio.timeout(deadline):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(head.encode() + b"\r\n" + body)
                while data := await reader.read(65_536):
                    found += data
                    if leave:
                        break
            finally:
                writer.close()
    except TimeoutError:
        return Asked(408, deadline, False)
    except OSError:
        return Asked(0, time.perf_counter() - began, False)
    status = int(found[9:12]) if len(found) > 12 else 0
    complete = status == 200 and (b"[DONE]" in found or b'"usage"' in found)
    return Asked(status, time.perf_counter() - began, complete)


async def closed(target: Target, clients: int, seconds: float, tokens: int) -> list[Asked]:
    """Clients that ask one after the other."""
    found: list[Asked] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        rng = random.Random(number)
        while time.perf_counter() < end:
            found.append(await ask(target, body_of(target, rng, tokens), 300.0))

    await asyncio.gather(*(client(number) for number in range(clients)))
    return found


async def arriving(target: Target, rate: float, seconds: float, tokens: int, deadline: float) -> list[Asked]:
    """Requests that arrive as by chance, whatever became of those before."""
    rng, due = random.Random(0), time.perf_counter()
    end, tasks = due + seconds, []
    while (due := due + rng.expovariate(rate)) < end:
        await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        tasks.append(asyncio.create_task(ask(target, body_of(target, rng, tokens), deadline)))
    return list(await asyncio.gather(*tasks))


def overload(target: Target, chosen: argparse.Namespace) -> dict[str, object]:
    """Measure capacity and goodput."""
    asyncio.run(closed(target, chosen.clients, chosen.seconds / 4, chosen.tokens))
    began = time.perf_counter()
    calm = asyncio.run(closed(target, chosen.clients, chosen.seconds, chosen.tokens))
    capacity = sum(each.complete for each in calm) / (time.perf_counter() - began)
    rate, began = capacity * chosen.factor, time.perf_counter()
    found = asyncio.run(arriving(target, rate, chosen.seconds, chosen.tokens, chosen.deadline))
    passed = time.perf_counter() - began
    refused = sorted(each.seconds for each in found if each.status in (429, 503))
    times = sorted(each.seconds for each in found if each.complete)
    return {
        "capacity_per_second": round(capacity, 2),
        "asked_per_second": round(len(found) / chosen.seconds, 2),
        "goodput": round(len(times) / passed / capacity, 3),
        "statuses": dict(Counter(each.status for each in found)),
        "refused_p50_p95_ms": [round(1000 * _at(refused, share), 1) for share in (0.5, 0.95)],
        "complete_p50_p95_s": [round(_at(times, share), 2) for share in (0.5, 0.95)],
    }


def _at(times: list[float], share: float) -> float:
    return times[min(int(len(times) * share), len(times) - 1)] if times else float("nan")


async def _mixed(target: Target, chosen: argparse.Namespace, memory: list[tuple[float, float]]) -> Counter[int]:
    end, statuses = time.perf_counter() + chosen.seconds, Counter[int]()

    async def client(number: int) -> None:
        rng = random.Random(number)
        while time.perf_counter() < end:
            kind, words = rng.random(), rng.choice((3, 12, 12, 40))
            body = body_of(target, rng, rng.randint(1, chosen.tokens), stream=kind < 0.7, words=words)
            if kind > 0.95:
                body = rng.choice((b"{", b'{"model": "x"}', body.replace(b"user", b"nobody")))
            statuses[(await ask(target, body, 300.0, leave=kind < 0.15)).status] += 1

    async def watch() -> None:
        began = time.perf_counter()
        while (now := time.perf_counter()) < end:
            used = sum(psutil.Process(pid).memory_info().rss for pid in target.pids)
            memory.append((now - began, used / MIB))
            await asyncio.sleep(min(5.0, chosen.seconds / 50))

    await asyncio.gather(watch(), *(client(number) for number in range(chosen.clients)))
    return statuses


def mixed(target: Target, chosen: argparse.Namespace) -> dict[str, object]:
    """Run the mixed load; returns memory and its slope."""
    memory: list[tuple[float, float]] = []
    statuses = asyncio.run(_mixed(target, chosen, memory))
    times, used = np.array(memory).T
    late = times >= chosen.seconds / 5
    slope = float(np.polyfit(times[late], used[late], 1)[0]) * 3600
    return {
        "seconds": chosen.seconds,
        "requests": sum(statuses.values()),
        "statuses": dict(statuses),
        "mib_at_start_fifth_end": [round(float(each), 1) for each in (used[0], used[late][0], used[-1])],
        "mib_per_hour": round(slope, 1),
    }


@contextlib.contextmanager
def served(folder: str) -> Iterator[Target]:
    """A model served by a process of its own."""
    with tempfile.TemporaryDirectory(prefix="raypath-load-") as place:
        command = [sys.executable, "-m", "tests.bench.generation_load", "serve", "--folder", folder or place]
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
        with subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin
            assert process.stdout
            lines = (line.decode() for line in process.stdout)
            url = next((line.split()[1] for line in lines if line.startswith("url ")), "")
            try:
                yield Target(url, "none", "m", (process.pid,))
            finally:
                process.stdin.close()


def serve(folder: Path) -> None:
    """Serve the model of a folder, or a tiny one that is made in it, until standard input ends."""
    from raypath.components.serving.params import ServeParams
    from tests.components.serving.language.chat_server import chat_model, language_service, served_chat

    if not (folder / "config.json").exists():
        chat_model(folder, max_position_embeddings=1_024)
    settings = ServeParams(threads=len(os.sched_getaffinity(0)), max_queue_seconds=float(os.environ.get("QUEUE", "3")))
    service = language_service({"m": folder}, settings)
    service.load.calibrate(service.models.main.pace)
    with served_chat(service) as url:
        print(f"url {url}", flush=True)
        sys.stdin.read()


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.generation_load", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=("overload", "mixed", "serve"))
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of each phase; 3600 for an hour")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of a response, in mixed at most")
    parser.add_argument("--factor", type=float, default=5.0, help="overload: arrivals as a multiple of the capacity")
    parser.add_argument("--deadline", type=float, default=30.0, help="overload: seconds for a complete response")
    parser.add_argument("--folder", default="", help="folder of a model that is served without Ray")
    parser.add_argument("--url", default="", help="an endpoint that runs")
    parser.add_argument("--key", default="none")
    parser.add_argument("--model", default="chat")
    parser.add_argument("--pid", type=int, action="append", default=[], help="its processes, for mixed")
    chosen = parser.parse_args()
    if chosen.kind == "serve":
        serve(Path(chosen.folder))
        return
    measure = overload if chosen.kind == "overload" else mixed
    given = Target(chosen.url.rstrip("/"), chosen.key, chosen.model, tuple(chosen.pid))
    with contextlib.nullcontext(given) if chosen.url else served(chosen.folder) as target:
        print(json.dumps(measure(target, chosen), indent=1))


if __name__ == "__main__":
    main()
