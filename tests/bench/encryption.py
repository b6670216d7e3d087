"""Cost of encryption at rest on a whole run: `python -m tests.bench.encryption [--pairs N] [--seconds S]`.

Each pair is text_classification on the sample in two new homes, one of them encrypted, in alternating order. Wall time
is that of `raypath run`. Processor time is a lower bound: that of the processes from `raypath up` to `raypath down` for
which somebody waited. The next pair is started if the longest one so far would end within the seconds. Quiet machines
only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

AIM = 1.10
"""Largest ratio of wall time that the design allows."""
SETTINGS = ("finetune.epochs=1",)
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_CLI = (sys.executable, "-m", "raypath.deploy.cli.main")


@dataclass(frozen=True)
class Cost:
    """What a run took, in seconds."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Pair:
    """Two runs that follow one another."""

    plain: Cost
    encrypted: Cost


def measure(home: Path, encrypted: bool, settings: Sequence[str]) -> Cost:
    """Run the workflow in a new home. Raises CalledProcessError."""
    environment = {**os.environ, "RAYPATH_HOME": str(home), "RAYPATH_MASTER_KEY": "5a" * 32}
    before = cpu_seconds()
    if encrypted:
        _raypath(environment, "encryption", "init")
    _raypath(environment, "up")
    try:
        options = [part for each in settings for part in ("-s", each)]
        started = time.perf_counter()
        _raypath(environment, "run", "text_classification", *options)
        wall = time.perf_counter() - started
    finally:
        _raypath(environment, "down")
    reap_all()
    return Cost(wall, cpu_seconds() - before)


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose parents end, so that their processor time counts here."""
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)


def reap_all(seconds: float = 30.0) -> None:
    """Wait for all descendants. Raises TimeoutError if one is left."""
    end = time.monotonic() + seconds
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            if time.monotonic() > end:
                raise TimeoutError("a process of the run did not end")
            time.sleep(0.05)


def cpu_seconds() -> float:
    """Processor time of all descendants that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(pairs: Sequence[Pair]) -> dict[str, float]:
    """Medians, and the median of the ratios of the pairs."""
    found: dict[str, float] = {"pairs": len(pairs)}
    for name in ("wall", "cpu"):
        plain = [float(getattr(each.plain, name)) for each in pairs]
        encrypted = [float(getattr(each.encrypted, name)) for each in pairs]
        found |= {f"{name}_plain": statistics.median(plain), f"{name}_encrypted": statistics.median(encrypted)}
        found[f"{name}_ratio"] = statistics.median(b / a for a, b in zip(plain, encrypted, strict=True))
    return found


def _raypath(environment: dict[str, str], *arguments: str) -> None:
    subprocess.run([*_CLI, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=450.0, help="start no pair that would end later")
    parser.add_argument("-s", dest="settings", action="append", default=[], help="settings of the workflow")
    given = parser.parse_args()
    adopt_orphans()
    began, longest, pairs = time.perf_counter(), 0.0, list[Pair]()
    while len(pairs) < given.pairs and (not pairs or time.perf_counter() - began + longest < given.seconds):
        at, found = time.perf_counter(), dict[bool, Cost]()
        for encrypted in (False, True) if len(pairs) % 2 == 0 else (True, False):
            with tempfile.TemporaryDirectory(prefix="raypath-bench-") as folder:
                found[encrypted] = measure(Path(folder) / "home", encrypted, [*SETTINGS, *given.settings])
        pairs.append(Pair(found[False], found[True]))
        longest = max(longest, time.perf_counter() - at)
        print(json.dumps(asdict(pairs[-1])), flush=True)
    result = summary(pairs)
    print(json.dumps(result))
    print(f"wall time {result['wall_ratio']:.3f} times that without encryption; the aim is at most {AIM}")


if __name__ == "__main__":
    main()
