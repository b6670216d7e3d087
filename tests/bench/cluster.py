"""What one Ray head handles, and preprocessing on one to four nodes: `python -m tests.bench.cluster`.

The nodes are real, each with one CPU to Ray, but they share this machine's cores: with more nodes than cores the
figures show what nodes cost, not what they bring. Each figure is the median of ROUNDS, from a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.memory import BASE, context, make_csv, settle
from tests.chaos.cluster import HEAD, Nodes

TASKS, ACTORS, OBJECTS = 5_000, 40, 20_000
ROWS = 300_000
"""To preprocess; about 220 bytes each, more than is left to one process."""
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--child", choices=["head", "preprocess"], help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(_head() if args.child == "head" else _preprocess(args.data, args.nodes)))
        return
    with tempfile.TemporaryDirectory() as folder, Nodes(cpus=1) as cluster:
        for name, value in _child(cluster, "head").items():
            print(f"{name:<28} {value:>10,.0f}", flush=True)
        make(Path(folder))
        print("| nodes | rows a second, median (min-max) | to one node |\n| ---: | ---: | ---: |")
        first = 0.0
        for count in range(1, args.nodes + 1):
            if count > 1:
                cluster.add(f"n{count}")
            found = [_child(cluster, "preprocess", "--data", folder, "--nodes", str(count)) for _ in range(ROUNDS)]
            speeds = [each["rows_per_second"] for each in found]
            middle = statistics.median(speeds)
            first = first or middle
            print(
                f"| {count} | {middle:,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f}) | {middle / first:.2f} |",
                flush=True,
            )


def make(folder: Path) -> None:
    """The parts of a dataset of made-up reviews, and where they are as JSON."""
    from raypath.components.read import ReadParams, read
    from raypath.components.split import SplitParams, split

    make_csv(folder / "rows.csv", ROWS)
    first, second = context(folder, "read"), context(folder, "split")
    data = settle(first, read.fn(first, ReadParams(uri=str(folder / "rows.csv"))))
    parts = settle(second, split.fn(second, data, SplitParams()))
    (folder / "parts.json").write_text(parts.model_dump_json())


def _child(cluster: Nodes, what: str, *more: str) -> dict[str, float]:
    env = {**os.environ, **cluster.env, "RAY_ADDRESS": f"{HEAD}:{cluster.port}", "OMP_NUM_THREADS": "1"}
    env["TOKENIZERS_PARALLELISM"] = "false"
    line = [sys.executable, "-m", "tests.bench.cluster", "--child", what, *more]
    done = subprocess.run(line, env=env, check=True, stdout=subprocess.PIPE, text=True)
    # Ray may have the last word.
    found: dict[str, float] = json.loads([each for each in done.stdout.splitlines() if each.startswith("{")][-1])
    return found


def _connect() -> Any:
    import logging

    import ray

    ray.init(log_to_driver=False, logging_level=logging.WARNING, runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}})
    return ray


def _head() -> dict[str, float]:
    ray = _connect()

    @ray.remote(num_cpus=0)
    def nothing() -> None: ...

    @ray.remote(num_cpus=0)
    class Nobody:
        def ready(self) -> None: ...

    def tasks() -> int:
        ray.get([nothing.remote() for _ in range(TASKS)])
        return TASKS

    def actors() -> int:
        found = [Nobody.remote() for _ in range(ACTORS)]  # type: ignore[attr-defined]
        ray.get([each.ready.remote() for each in found])
        return ACTORS

    def objects() -> int:
        kept = [ray.put(number) for number in range(OBJECTS)]
        ray.get(kept[-1])
        return OBJECTS

    tasks()
    found = {
        f"{work.__name__} a second": statistics.median(_rate(work) for _ in range(ROUNDS))
        for work in (tasks, actors, objects)
    }
    return {**found, "MiB of the head's GCS": _gcs_mib()}


def _rate(work: Callable[[], int]) -> float:
    began = time.monotonic()
    count = work()
    return count / (time.monotonic() - began)


def _gcs_mib() -> float:
    import psutil

    found = [p for p in psutil.process_iter(["name", "memory_info"]) if (p.info["name"] or "").startswith("gcs_server")]
    newest = max(found, key=psutil.Process.create_time)
    return float(newest.info["memory_info"].rss / (1 << 20))


def _preprocess(data: Path, nodes: int) -> dict[str, float]:
    """Our own step, by Ray Data on as many CPUs as the cluster has nodes: rows a second, its start included."""
    _connect()
    from raypath.components.core.artifacts import Splits
    from raypath.components.preprocess import PreprocessParams, preprocess

    parts = Splits.model_validate_json((data / "parts.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        ctx = dataclasses.replace(context(Path(folder), "preprocess"), workers=nodes)
        began = time.monotonic()
        made = preprocess.fn(ctx, parts, PreprocessParams(max_length=128).using(BASE))
        return {"rows_per_second": (made.train.rows + made.valid.rows + made.test.rows) / (time.monotonic() - began)}


if __name__ == "__main__":
    main()
