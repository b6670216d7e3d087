"""Replicas and the proxy killed under load: `python -m tests.bench.faults --help`.

Clients ask as in serving.py while SIGKILL goes to a replica or to HAProxy. A request is lost when it is never answered
with 200. Clients ask again, for up to a minute, only where the connection broke or was refused: an answer changes
nothing on the server, so that asking twice is safe.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from raypath.deploy.local.processes import MARK
from tests.bench.serve_peers import CONTENDERS, Served
from tests.bench.serving import set_up

PATIENCE = 60.0
FIRST = 30_000
"""Where the ports of replicas begin, those of all homes."""


class Clients:
    """Threads that ask until enough is asked."""

    def __init__(self, served: Served, texts: list[str], requests: int, clients: int) -> None:
        self.served, self.texts, self.left = served, texts, requests
        self.statuses: Counter[str] = Counter()
        self.times: list[float] = []
        self.again = 0
        self._lock = threading.Lock()
        self.threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _ask_on(self) -> None:
        client = httpx.Client(headers=self.served.headers, timeout=PATIENCE, trust_env=False)
        while True:
            with self._lock:
                if not self.left:
                    return
                self.left -= 1
            text = random.choice(self.texts)
            start = time.perf_counter()
            status, again = self._ask(client, text, start)
            with self._lock:
                self.statuses[status] += 1
                self.times.append(time.perf_counter() - start)
                self.again += again

    def _ask(self, client: httpx.Client, text: str, start: float) -> tuple[str, int]:
        again = 0
        while True:
            try:
                return str(client.post(self.served.url, json=self.served.ask(text)).status_code), again
            except httpx.TransportError as error:
                again += 1
                if time.perf_counter() - start > PATIENCE:
                    return type(error).__name__, again
                time.sleep(0.1)


def victims(family: int, word: str) -> list[psutil.Process]:
    """Processes of a service whose name or command line has the word, children and those with the same mark."""
    marks = {_mark(process) for process in psutil.Process(family).children(recursive=True)} - {""}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, IndexError):
            if (word == process.name() or word in process.cmdline()[0]) and _mark(process) in marks:
                found.append(process)
    return found


def ready(family: int, word: str) -> list[psutil.Process]:
    """Those that answer: of replicas the ones whose HTTP server listens."""
    found = victims(family, word)
    return [process for process in found if word != "ServeReplica" or _listens(process)]


def _listens(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        ports = [c.laddr.port for c in process.net_connections("tcp4") if c.status == psutil.CONN_LISTEN]
        return any(FIRST <= port < FIRST + 2_768 for port in ports)
    return False


def _mark(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.environ().get(MARK, "")
    return ""


def run(served: Served, texts: list[str], chosen: argparse.Namespace) -> dict[str, Any]:
    """Ask and kill; what came of it."""
    asked = Clients(served, texts, chosen.requests, chosen.clients)
    kills: Counter[str] = Counter()
    order = ["ServeReplica"] * chosen.replica_kills + ["haproxy"] * chosen.proxy_kills
    random.shuffle(order)
    for word in order:
        time.sleep(chosen.pause)
        if not asked.left:
            break
        # The last replica is spared: with none there is nobody to ask.
        there, end = ready(served.process, word), time.monotonic() + PATIENCE
        while word == "ServeReplica" and len(there) < 2 and time.monotonic() < end:
            time.sleep(0.5)
            there = ready(served.process, word)
        if there:
            with suppress(psutil.Error):
                random.choice(there).kill()
                kills[word] += 1
                print(f"killed {word}, {asked.left} requests to go", file=sys.stderr, flush=True)
    for thread in asked.threads:
        thread.join()
    times = sorted(asked.times)
    return {
        "requests": len(times),
        "statuses": dict(asked.statuses),
        "lost": len(times) - asked.statuses["200"],
        "asked_again_by_clients": asked.again,
        "kills": dict(kills),
        "p50_ms": round(1000 * times[len(times) // 2], 1),
        "p99_ms": round(1000 * times[int(len(times) * 0.99)], 1),
        "longest_ms": round(1000 * times[-1], 1),
    }


def main() -> None:
    """Set up, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.faults", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--replica-kills", type=int, default=20)
    parser.add_argument("--proxy-kills", type=int, default=5)
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between two kills")
    parser.add_argument("--model", type=Path, required=True, help="folder of a classifier")
    chosen = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="raypath-faults-", ignore_cleanup_errors=True) as place:
        setup = set_up(Path(place), chosen.model, threads, {"replicas": 2, "threads": 1})
        with CONTENDERS["raypath"](setup) as served:
            print(json.dumps(run(served, list(setup.texts), chosen)))


if __name__ == "__main__":
    main()
