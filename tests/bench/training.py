"""Fine-tuning against the Hugging Face Trainer and a bare loop: `python -m tests.bench.training --help`.

The same model (all-MiniLM-L6-v2), the same 2,000 reviews cut at 128 tokens, the same cores. Contenders take turns: in
every round each trains in a process of its own, and the order moves on by one. See peers.py for who they are, work.py
for how the share of the machine's peak is counted, tables.py for samples a second. On the processor, or on
a GPU with `--device cuda`, where larger steps and another base make sense: `--batch 256 --tokens 16384 --base FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raypath.deploy.local.state import environment
from tests.bench import tables
from tests.bench.reviews import BASE, Spec, prepare
from tests.bench.tables import say

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("trainer", "trainer-best", "bare", "bare-plain", "raypath", "raypath-default")
QUALITY = ("trainer", "raypath", "raypath-default")
STARTS = ("plain", "raypath")


def measure(job: str, name: str, spec: Spec, limit: float = 3600.0) -> dict[str, Any]:
    """Run one measurement in a fresh process. `process`: seconds from its start to the first optimizer step."""
    given, out = (Path(spec.folder) / f"{job}-{name}-{spec.seed}.{end}" for end in ("json", "out"))
    given.write_text(spec.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "tests.bench.child", job, name, str(given), str(out)]
    started = time.time()
    done = subprocess.run(command, cwd=ROOT, env=_environment(spec), capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise SystemExit(f"{job} {name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found | ({"process": found["ended"] - started} if "ended" in found else {})


def _environment(spec: Spec) -> dict[str, str]:
    """No network, no GPU unless it is asked for, and for Ray what a run's own processes have."""
    seen = {} if spec.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **environment(Path(spec.folder)), **seen, "HF_HUB_OFFLINE": "1"}


def turns(names: Iterable[str], rounds: int) -> Iterator[tuple[int, str]]:
    """(round, name): all names in every round, each time beginning with another."""
    order = list(names)
    for number in range(rounds):
        first = number % len(order)
        for name in order[first:] + order[:first]:
            yield number, name


def run_speed(spec: Spec, names: list[str], rounds: int) -> dict[str, Any]:
    """Steady state of the contenders; the machine's peak is measured anew in every round."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    peaks: list[dict[str, float]] = []
    for number, name in turns(names, rounds):
        seeded = spec.model_copy(update={"seed": number})
        if len(peaks) == number:
            peaks.append(measure("peak", "machine", seeded))
            say(f"round {number + 1}: peak " + ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in peaks[-1].items()))
        found[name].append(one := measure("speed", name, seeded))
        say(f"round {number + 1}: {name} {one['tokens'] / one['seconds']:.0f} tokens/s")
    return {"peaks": peaks, "speed": found}


def run_each(job: str, spec: Spec, names: Iterable[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """The jobs that are start-ups or whole trainings."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number, name in turns(found, rounds):
        found[name].append(one := measure(job, name, spec.model_copy(update={"seed": number})))
        say(f"round {number + 1}: {job} {name} {one['seconds']:.1f} s")
    return found


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """What the figures were taken on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    packages = {name: version(name) for name in ("torch", "transformers", "ray")}
    if device == "cuda":
        import torch

        packages = {"gpu": torch.cuda.get_device_name(), **packages}
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": threads, "load": os.getloadavg()[0], **packages}


def options(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the steady state")
    parser.add_argument("--steps", type=int, default=20, help="steps timed in a round, after the warm-up")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them that are not counted")
    parser.add_argument("--starts", type=int, default=5, help="rounds of the start-up")
    parser.add_argument("--rows", type=int, default=2000, help="reviews to train on; the train part has 3,600")
    parser.add_argument("--base", default=BASE, help="base model of all")
    parser.add_argument("--batch", type=int, default=32, help="rows in a step of the Trainer")
    parser.add_argument("--tokens", type=int, default=0, help="tokens in a step of ours and of the bare loop")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", choices=[*NAMES, "start-up"], default=[*NAMES, "start-up"])
    parser.add_argument("--quality", action="store_true", help="test figures after one epoch, instead of speed")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each contender for --quality")
    parser.add_argument("--out", type=Path, help="folder for training.json; a new temporary one if not given")
    chosen = parser.parse_args(words)
    chosen.out = (chosen.out or Path(tempfile.mkdtemp(prefix="raypath-bench-"))).resolve()
    if chosen.out.is_relative_to(ROOT):
        parser.error("--out lies inside the repository")
    return chosen


def bench(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure what is asked for; prints tables."""
    spec = prepare(folder, chosen.rows, chosen.threads, chosen.base)
    spec = spec.model_copy(update={"batch": chosen.batch, "tokens": chosen.tokens, "device": chosen.device})
    made: dict[str, Any] = {"machine": machine(chosen.threads, chosen.device), "rows": spec.train.rows}
    names = [name for name in NAMES if name in chosen.only]
    if chosen.quality:
        made["quality"] = run_each("quality", spec, [name for name in names if name in QUALITY], chosen.seeds)
        made["tables"] = [tables.qualities(made["quality"])]
        return made
    epochs = -(-(chosen.steps + chosen.warmup) * spec.batch // spec.train.rows)
    spec = spec.model_copy(update={"steps": chosen.steps, "warmup": chosen.warmup, "epochs": epochs})
    made["tables"] = []
    if names:
        made |= run_speed(spec, names, chosen.rounds)
        made["tables"].append(tables.speeds(made["speed"], made["peaks"], mean_length(spec)))
    if "start-up" in chosen.only:
        made["start"] = run_each("start", spec, STARTS, chosen.starts)
        made["tables"].append(tables.starts(made["start"]))
    return made


def mean_length(spec: Spec) -> float:
    """Tokens of a training row."""
    from tests.bench.ours import rows_of

    return float(rows_of(spec, "train").lengths.mean())


def main() -> None:
    """Measure, print, write training.json."""
    chosen = options()
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raypath-training-") as folder:
        made = bench(chosen, Path(folder))
    tables.publish("training", made, chosen.out)


if __name__ == "__main__":
    main()
