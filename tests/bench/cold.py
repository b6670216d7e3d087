"""How long a service without a replica takes to answer: `python -m tests.bench.cold --help`.

The endpoint may scale to none. Once the last replica is gone a request is sent: Ray Serve asks for a replica, a process
starts, imports torch, opens the model, checks it by its recorded examples and answers. The seconds of that request,
and of them those from the start of the replica's process on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.bench.faults import victims
from tests.bench.serve_peers import CONTENDERS, Served
from tests.bench.serving import set_up

NONE = {"replicas": 0, "max_replicas": 1, "idle_seconds": 1.0}
GONE = 120.0
"""Seconds in which the last replica has to go."""


def woken(served: Served, text: str) -> tuple[float, float]:
    """Seconds of the first request, and those since the replica's process began."""
    end = time.monotonic() + GONE
    while victims(served.process, "ServeReplica"):
        if time.monotonic() > end:
            raise SystemExit(f"a replica was still there after {GONE:g} s")
        time.sleep(0.2)
    born: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            with suppress(psutil.Error):
                born.extend(process.create_time() for process in victims(served.process, "ServeReplica"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.time()
    served.request(text, seconds=60.0)
    ended = time.time()
    over.set()
    watcher.join()
    return ended - began, ended - max(min(born, default=began), began)


def main() -> None:
    """Set up, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cold", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="folder of a classifier of reviews; fine-tunes one if not given")
    parser.add_argument("--precision", default="auto", help="of that model")
    chosen = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="raypath-cold-", ignore_cleanup_errors=True) as place:
        setup = set_up(Path(place), chosen.model, threads, NONE, texts=64, precision=chosen.precision)
        with CONTENDERS["raypath"](setup) as served:
            found = [woken(served, setup.texts[0]) for _ in range(chosen.rounds)]
    for name, values in zip(
        ("the request, s", "of them since the process began"), zip(*found, strict=True), strict=True
    ):
        print(f"{name:32} {statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")


if __name__ == "__main__":
    main()
