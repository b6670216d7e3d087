"""Streaming generation by Raypath's service and by others: `python -m tests.bench.generate`, about 25 minutes.

In every round each server is started alone, warmed up, measured in every cell and stopped; each round begins with
another. A cell is a number of clients, a size of prompts and a number of new tokens: the clients send a fixed number of
requests, and open streams are closed after `--seconds`. `offline` is Raypath's engine without a server. The peers are
installed by `make bench-peers`, into the user's cache. `--short` is one round of four cells.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from raypath.components.models.conversion.packaged import CHAT
from tests.bench.generate.contenders import PACKAGES, Served, Setup, ask, environment_of, started, version_of
from tests.bench.generate.prompts import Cell, bodies
from tests.bench.generate.summary import OFFLINE, OURS, tables
from tests.bench.serve_peers import ROOT
from tests.bench.serving import child
from tests.bench.tables import publish, say
from tests.bench.training import machine, turns

NAMES = (OURS, OFFLINE, *PACKAGES)
SIZES = ((100, 64, False), (1_000, 64, False), (1_000, 64, True), (100, 256, False))
"""Prompt, new tokens, and whether the prompts share a system message."""
CLIENTS = (1, 8, 32)


def cells_of(chosen: argparse.Namespace) -> list[Cell]:
    """Return the cells, small ones first."""
    sizes = SIZES[:1] if chosen.short else SIZES
    found = [
        Cell(clients=count, prompt=prompt, tokens=tokens, shared=shared)
        for prompt, tokens, shared in sizes
        for count in chosen.clients
    ]
    return found + ([Cell(clients=8, prompt=1_000, tokens=64)] if chosen.short else [])


def measure(name: str, setup: Setup, cells: list[Cell], seed: int, seconds: float) -> list[dict[str, Any]]:
    """Return the figures of each cell of one contender."""
    folder, limit = Path(setup.folder), 120 + 2 * seconds * len(cells)
    if name == OFFLINE:
        given = {
            "setup": setup.model_dump(),
            "cells": [c.model_dump() for c in cells],
            "seed": seed,
            "seconds": seconds,
        }
        found: list[dict[str, Any]] = child(
            folder, setup.threads, "generate.offline", [], json.dumps(given), limit + seconds
        )
        return found
    with started(name, setup) as served:
        _press(setup, served, Cell(clients=2, prompt=100, tokens=8), -1, 30.0)
        return [_press(setup, served, cell, seed + n, seconds) for n, cell in enumerate(cells)]


def _press(setup: Setup, served: Served, cell: Cell, seed: int, seconds: float) -> dict[str, Any]:
    given = {
        "url": served.url,
        "bodies": [json.dumps({"model": served.model, **body}) for body in bodies(cell, cell.requests, seed)],
        "headers": served.headers,
        "clients": cell.clients,
        "seconds": seconds,
        "tokenizer": str(Path(setup.model) / "tokenizer.json"),
    }
    limit = 60 + 2 * seconds
    found: dict[str, Any] = child(Path(setup.folder), 1, "generate.client", [], json.dumps(given), limit)
    # A server may go on with a stream that was closed, and the next cell would wait for it.
    ask(served, {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}, seconds=120.0)
    return found


def options(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="one round of four cells, a few minutes")
    parser.add_argument("--rounds", type=int, default=0, help="3, with --short 1")
    parser.add_argument("--seconds", type=float, default=8.0, help="longest time of a cell")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--base", default=CHAT, help="folder or URI of a decoder in bfloat16")
    parser.add_argument(
        "--precision", choices=["auto", "bf16", "openvino", "openvino-int8", "vllm"], default="auto", help="of Raypath"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every server")
    parser.add_argument("--out", type=Path, help="folder for generation.json; a new temporary one if not given")
    chosen = parser.parse_args(words)
    chosen.rounds = chosen.rounds or (1 if chosen.short else 3)
    chosen.out = (chosen.out or Path(tempfile.mkdtemp(prefix="raypath-bench-"))).resolve()
    if chosen.out.is_relative_to(ROOT):
        parser.error("--out lies inside the repository")
    return chosen


def bench(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure all contenders that are installed."""
    given = {"folder": str(folder), "base": chosen.base, "threads": chosen.threads, "precision": chosen.precision}
    made = child(folder, chosen.threads, "generate.models", [], json.dumps(given), 900.0)
    setup, cells, versions = Setup(**made["setup"]), cells_of(chosen), {}
    names = [name for name in NAMES if name in chosen.only]
    for name in [name for name in names if name in PACKAGES]:
        versions[PACKAGES[name]] = version_of(name)
        if not versions[PACKAGES[name]]:
            say(f"{name} is left out: {environment_of(name)} has none (make bench-peers)")
            names.remove(name)
    say(f"raypath's engine: {made['engine'].get('chosen', 'as it opens')}")
    rounds: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in names}
    for number, name in turns(names, chosen.rounds):
        if name not in rounds:
            continue
        try:
            found = measure(name, setup, cells, 1_000 * number, chosen.seconds)
        except (SystemExit, OSError, subprocess.SubprocessError) as error:
            if name not in PACKAGES:
                raise
            say(f"{name} is left out: {error}")
            del rounds[name]
            continue
        rounds[name].append(found)
        say(f"round {number + 1}: {name} " + ", ".join(f"{each['tokens_s']:.0f}" for each in found) + " tokens/s")
    about = machine(chosen.threads) | versions | {"engine": made["engine"]}
    return {
        "machine": about,
        "cells": [each.model_dump() for each in cells],
        "rounds": rounds,
        "tables": list(tables(rounds, cells)),
    }


def main() -> None:
    """Measure, print, write generation.json."""
    chosen = options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no server stays
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raypath-generate-", ignore_cleanup_errors=True) as folder:
        made = bench(chosen, Path(folder))
    publish("generation", made, chosen.out)


if __name__ == "__main__":
    main()
