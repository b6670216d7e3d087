"""Serving against its peers: `python -m tests.bench.serving --help`.

The same classifier (all-MiniLM-L6-v2, fine-tuned on product reviews), the same 640 reviews cut at 128 tokens, the same
threads, 32 keep-alive clients that send one text a request. Contenders take turns: in every round each is started
afresh, warmed up, asked for some seconds and stopped, and the order moves on by one. `offline` is the limit: our engine
without a server, fed 32 texts at a time. See servers.py for who they are, load.py for the clients. On the
processor, or on a GPU with `--device cuda`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import yaml

from raypath.components import UserError
from raypath.components.inference.backends.loader import Precision
from raypath.components.serving.params import ServeParams
from tests.bench.load import Load
from tests.bench.serve_peers import CONTENDERS, ROOT, Served, child_environment
from tests.bench.serve_tables import OFFLINE, load_table, overload_table, single_table
from tests.bench.servers import Setup
from tests.bench.tables import publish, say
from tests.bench.training import machine, turns

OURS = "raypath"
NAMES = (*CONTENDERS, OFFLINE)
CHECKED = 16
"""Texts whose labels are compared with the engine's own before a measurement."""


def child(
    folder: Path, threads: int, module: str, words: list[str], given: str, limit: float, device: str = "cpu"
) -> Any:
    """What `python -m module WORDS... GIVEN OUT` answers."""
    paths = [folder / f"{module}-{'-'.join(words)}.{end}" for end in ("json", "out")]
    paths[0].write_text(given, encoding="utf-8")
    command = [sys.executable, "-m", f"tests.bench.{module}", *words, *map(str, paths)]
    env = child_environment(folder, threads, device)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return json.loads(paths[1].read_text(encoding="utf-8"))


def set_up(
    folder: Path,
    model: Path | None,
    threads: int,
    serve: dict[str, Any],
    *,
    rows: int = 400,
    texts: int = 640,
    precision: str = "auto",
    device: str = "cpu",
) -> Setup:
    """The model and the texts of all contenders, made in a process of its own; see `direct.setup` for the settings."""
    given = {"folder": str(folder), "model": str(model.resolve()) if model else "", "serve": serve, "rows": rows}
    given |= {"texts": texts, "threads": threads, "precision": precision, "device": device}
    made = child(folder, threads, "direct", ["setup"], json.dumps(given), 1800.0, device)
    return Setup.model_validate_json(json.dumps(made))  # strictly: from JSON, a list is a tuple


def direct(setup: Setup, job: str, seconds: float) -> dict[str, Any]:
    """A measurement without a server."""
    given = {"setup": setup.model_dump(mode="json"), "seconds": seconds}
    found: dict[str, Any] = child(
        Path(setup.folder), setup.threads, "direct", [job], json.dumps(given), 600 + 10 * seconds, setup.device
    )
    return found


def press(
    setup: Setup, served: Served, seconds: float, clients: int = 32, warm: int = 64, rate: float = 0.0
) -> dict[str, Any]:
    """Put a load on a server from a process of its own. See `Load` for the settings."""
    bodies = [json.dumps(served.ask(text)) for text in setup.texts]
    load = Load(
        url=served.url, headers=served.headers, bodies=bodies, seconds=seconds, clients=clients, warm=warm, rate=rate
    )
    limit = load.seconds + 2 * load.timeout + 60
    found: dict[str, Any] = child(
        Path(setup.folder), setup.threads, "load", [], load.model_dump_json(), limit + load.timeout
    )
    return found


def agreement(setup: Setup, served: Served) -> float:
    """The share of a few texts that get the engine's label."""
    pairs = list(zip(setup.texts, setup.labels, strict=True))[:CHECKED]
    return sum(str(served.request(text)) == label for text, label in pairs) / len(pairs)


def run_load(setup: Setup, names: list[str], chosen: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """All contenders in every round."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, name in turns(names, chosen.rounds):
        if name == OFFLINE:
            made = direct(setup, OFFLINE, chosen.seconds)
        else:
            with CONTENDERS[name](setup) as served:
                agrees = agreement(setup, served)
                made = {name: press(setup, served, clients=chosen.clients, seconds=chosen.seconds) | {"agrees": agrees}}
        for each, one in made.items():
            found.setdefault(each, []).append(one)
            told = f", labels agree {one['agrees']:.0%}" if "agrees" in one else ""
            say(f"round {number + 1}: {each} {one['requests_s']:.1f} requests/s{told}")
    return found


def run_single(setup: Setup, chosen: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """One client of ours, and one text at a time without a server."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, name in turns([OURS, "bare"], chosen.rounds):
        if name == "bare":
            made = direct(setup, name, chosen.seconds)
        else:
            with CONTENDERS[OURS](setup) as served:
                made = {f"{OURS}, 1 client": press(setup, served, clients=1, warm=16, seconds=chosen.seconds)}
        for each, one in made.items():
            found.setdefault(each, []).append(one)
            say(f"round {number + 1}: {each} p50 {one['p50_ms']:.1f} ms")
    return found


def run_overload(setup: Setup, chosen: argparse.Namespace) -> dict[str, Any]:
    """Ten times what ours can answer, in an open loop."""
    with CONTENDERS[OURS](setup) as served:
        capacity = press(setup, served, clients=chosen.clients, seconds=min(chosen.seconds, 10.0))["requests_s"]
        before = served.replicas_mib()
        found = press(setup, served, rate=10 * max(capacity, 1.0), seconds=chosen.overload, warm=0)
        return found | {"capacity": capacity, "before_mib": before, "after_mib": served.replicas_mib()}


def options(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each contender in a round, after the warm-up")
    parser.add_argument("--clients", type=int, default=32, help="that ask at the same time")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--single", action="store_true", help="one client of raypath against a bare forward pass")
    parser.add_argument("--overload", type=float, default=0.0, metavar="SECONDS", help="raypath at 10 x its capacity")
    parser.add_argument("--model", type=Path, help="folder of a classifier of reviews; fine-tunes one if not given")
    parser.add_argument(
        "--precision", choices=["auto", *get_args(Precision)], default="auto", help="of raypath's model"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of our step serve")
    parser.add_argument("--texts", type=int, default=640, help="different requests")
    parser.add_argument("--rows", type=int, default=400, help="reviews to fine-tune on")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every server")
    parser.add_argument("--out", type=Path, help="folder for serving.json; a new temporary one if not given")
    chosen = parser.parse_args(words)
    chosen.set = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in chosen.set)}
    try:
        ServeParams().override(chosen.set)
    except UserError as error:
        parser.error(str(error))
    chosen.out = (chosen.out or Path(tempfile.mkdtemp(prefix="raypath-bench-"))).resolve()
    if chosen.out.is_relative_to(ROOT):
        parser.error("--out lies inside the repository")
    return chosen


def bench(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure what is asked for: the load, or `--single` and `--overload` instead of it."""
    more = {"rows": chosen.rows, "texts": chosen.texts}
    setup = set_up(
        folder, chosen.model, chosen.threads, chosen.set, **more, precision=chosen.precision, device=chosen.device
    )
    alone = chosen.single or chosen.overload
    packages = {name: version(name) for name in ("mlflow", "litserve") if name in chosen.only and not alone}
    made: dict[str, Any] = {
        "machine": machine(chosen.threads, chosen.device) | packages,
        "set": chosen.set,
        "tables": [],
    }
    if chosen.single:
        made["single"] = run_single(setup, chosen)
        made["tables"].append(single_table(made["single"]))
    if chosen.overload:
        made["overload"] = run_overload(setup, chosen)
        made["tables"].append(overload_table(made["overload"]))
    if not made["tables"]:
        made["load"] = run_load(setup, [name for name in NAMES if name in chosen.only], chosen)
        made["tables"].append(load_table(made["load"]))
    return made


def main() -> None:
    """Measure, print, write serving.json."""
    chosen = options()
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raypath-serving-", ignore_cleanup_errors=True) as folder:
        made = bench(chosen, Path(folder))
    publish("serving", made, chosen.out)


if __name__ == "__main__":
    main()
