"""Versions swapped under load: `python -m tests.bench.swaps --help`.

The alias champion goes to and fro between two versions as `raypath promote` moves it, while clients ask as in
faults.py. A request fails when it is not answered with 200 at the first try, and stalls when it takes more than three
times the 99th percentile of the requests that were asked before the first swap.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.faults import Clients
from tests.bench.serve_peers import CONTENDERS, Served
from tests.bench.servers import Setup
from tests.bench.serving import set_up

NAME = "bench"


def second_version(setup: Setup, home: Path) -> str:
    """Register another version of the model, with another head; returns MLflow's address."""
    from safetensors.torch import load_file, save_file

    from raypath.components.core.context import Tracking
    from raypath.components.register import RegisterParams, register
    from raypath.deploy.local.services import tracking_uri
    from tests.bench.direct import model_artifact, report_of
    from tests.bench.reviews import context

    server = tracking_uri(home)
    folder = Path(setup.folder) / "second"
    shutil.copytree(setup.model, folder)
    weights = {
        name: tensor * 1.01 if name.startswith("classifier") else tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors")
    tracking = Tracking(uri=server, experiment=NAME, spool=str(home / "spool"))
    ctx = context(Path(setup.folder), "register-2", setup.threads)
    ctx = replace(ctx, tracking=tracking, key="bench-2", signing=home / "signing")
    model = model_artifact(folder)
    register.fn(ctx, model, report_of(model, setup.test), RegisterParams(name=NAME))
    return server


def run(setup: Setup, served: Served, chosen: argparse.Namespace) -> dict[str, Any]:
    """Ask, then swap and ask; what came of it."""
    from raypath.components.registry.aliases import promote
    from raypath.deploy.local.rollout import roll_out

    home, texts = Path(setup.folder) / "home", list(setup.texts)
    uri, took = second_version(setup, home), []
    # The clients are threads of this process: what a first promotion imports here would be counted as theirs.
    for version in (2, 1):
        roll_out(home, NAME, version, promote(uri, NAME, version, home / "signing"))
    quiet = Clients(served, texts, max(chosen.requests // 10, 200), chosen.clients)
    for thread in quiet.threads:
        thread.join()
    p99 = _at(quiet.times, 0.99)
    asked = Clients(served, texts, chosen.requests, chosen.clients)
    for number in range(chosen.swaps):
        while asked.left > chosen.requests * (chosen.swaps - number) // (chosen.swaps + 1):
            time.sleep(0.05)
        version, start = 2 - number % 2, time.perf_counter()
        roll_out(home, NAME, version, promote(uri, NAME, version, home / "signing"))
        took.append(time.perf_counter() - start)
        print(f"version {version} after {took[-1]:.1f} s, {asked.left} requests to go", file=sys.stderr, flush=True)
    for thread in asked.threads:
        thread.join()
    return {
        "requests": len(asked.times),
        "statuses": dict(asked.statuses),
        "asked_again_by_clients": asked.again,
        "swaps": len(took),
        "swap_seconds": [round(min(took), 1), round(max(took), 1)],
        "p50_ms_before": round(1000 * _at(quiet.times, 0.5), 1),
        "p99_ms_before": round(1000 * p99, 1),
        "p99_ms": round(1000 * _at(asked.times, 0.99), 1),
        "longest_ms": round(1000 * max(asked.times), 1),
        "stalled": sum(seconds > 3 * p99 for seconds in asked.times),
    }


def _at(times: list[float], share: float) -> float:
    return sorted(times)[int(len(times) * share)]


def main() -> None:
    """Set up, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.swaps", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--model", type=Path, required=True, help="folder of a classifier")
    chosen = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="raypath-swaps-", ignore_cleanup_errors=True) as place:
        setup = set_up(Path(place), chosen.model, threads, {})
        with CONTENDERS["raypath"](setup) as served:
            print(json.dumps(run(setup, served, chosen)))


if __name__ == "__main__":
    main()
