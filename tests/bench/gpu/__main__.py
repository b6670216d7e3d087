"""CUDA paths, checked and measured on one GPU in at most 12 minutes: `python -m tests.bench.gpu --help`.

First the tests with the mark `gpu`; then decoders (decoders/): their paths against the CPU, and the speed of training
a 1B Llama in full, with LoRA and with QLoRA; then variants of a training step (variants.py) on models of MiniLM-L6's
and BERT-large's shape; then `finetune` itself against the Trainer. `--only generation`, a run of its own where vLLM is
installed, is the service against vLLM's own server at 64 clients. Each is in a process of its own and has its seconds;
gpu.json is written after each. `--device cpu` runs the same script with tiny models, to show that all of it works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from raypath.components.models.bf16 import supports_bf16
from tests.bench import work
from tests.bench.gpu.decoders import report
from tests.bench.gpu.shapes import shapes_of
from tests.bench.gpu.variants import VARIANTS
from tests.bench.tables import say
from tests.bench.training import ROOT, machine

ORDER = ("eager", "packed, compiled, graph", "packed, graph", "few shapes, compiled", "compiled for any shape")
"""The variants that matter most come first, so that a short time suffices for them."""
PARTS = ("tests", "decoders", "variants", "training", "generation")
SECONDS = {"tests": 120.0, "decoders": 360.0, "variants": 150.0, "training": 90.0, "generation": 540.0}
"""Seconds of each part, at most: 12 minutes together, without the last one, which is a run of its own."""
VARIANT_SECONDS = 60.0
TEST_FILES = ("tests/components/training/test_training_gpu.py", "tests/components/inference/test_engine_gpu.py")
Save = Callable[[Any], None]
TRAINING = (
    "--rounds",
    "1",
    "--starts",
    "1",
    "--only",
    "trainer-best",
    "raypath",
    "--batch",
    "256",
    "--tokens",
    "16384",
)


def options(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--minutes", type=float, default=12.0, help="nothing is started that cannot end in this time")
    parser.add_argument("--steps", type=int, default=40, help="steps timed of each variant, after the warm-up")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them that are not counted")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:-1])
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.md; a new temporary one if not given")
    chosen = parser.parse_args(words)
    chosen.out = (chosen.out or Path(tempfile.mkdtemp(prefix="raypath-gpu-"))).resolve()
    chosen.out.mkdir(parents=True, exist_ok=True)
    return chosen


class Deadline:
    """The time that is left of `minutes`."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def left(self, most: float = 1e9) -> float:
        """Seconds left, at most `most`."""
        return min(most, self.end - time.monotonic())

    def part(self, seconds: float) -> Deadline:
        """Return the deadline of a part that has these seconds, and no more than are left."""
        return Deadline(self.left(seconds) / 60)


def run(words: list[str], seconds: float) -> tuple[int, str]:
    """Run a Python module. Return its exit status, 124 if it ran past `seconds`, and the end of what it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, seconds)
        )
    except subprocess.TimeoutExpired:
        return 124, f"stopped after {seconds:.0f} s"
    return done.returncode, (done.stdout + done.stderr)[-4000:]


def variant_order() -> list[str]:
    """List the variants, those that matter most first."""
    return [*ORDER, *(name for name in VARIANTS if name not in ORDER)]


def measure_variants(chosen: argparse.Namespace, deadline: Deadline, save: Save) -> list[dict[str, Any]]:
    """Measure every variant of every shape while time is left; what was left out says so."""
    peak = work.peak(supports_bf16(chosen.device), 2, chosen.device)
    say(f"a matmul runs at {peak / 1e12:.2f} TFLOP/s")
    lines: list[dict[str, Any]] = []
    for variant in variant_order():
        for shape in shapes_of(chosen.device):
            path = chosen.out / "variant.json"
            given = [shape, variant, chosen.device, str(chosen.warmup), str(chosen.steps), str(path)]
            status, printed = (124, "no time left")
            if deadline.left() > 20:
                status, printed = run(["tests.bench.gpu.child", *given], deadline.left(VARIANT_SECONDS))
            line = {"shape": shape, "variant": variant}
            if status:
                lines.append(line | {"failed": printed.strip().rpartition("\n")[2][:200]})
            else:
                lines.append(line | _figures(json.loads(path.read_text(encoding="utf-8")), peak))
            say(" ".join(f"{key}={value}" for key, value in lines[-1].items()))
            save(lines)
    return lines


def _figures(found: dict[str, Any], peak: float) -> dict[str, Any]:
    return {
        "samples/s": round(found["rows"] / found["seconds"]),
        "ms/step": round(1e3 * found["seconds"] / found["steps"], 2),
        "of peak": f"{found['operations'] / found['seconds'] / peak:.1%}",
        "ready, s": round(found["ready"], 1),
        "first loss": round(found["first_loss"], 4),
        "last loss": round(found["last_loss"], 4),
        "GPU MiB": round(found["memory"] / (1 << 20)),
    }


def table(lines: list[dict[str, Any]]) -> str:
    """Write the variants as a Markdown table, with the ratio to `eager` of the same shape."""
    base = {line["shape"]: line["samples/s"] for line in lines if line["variant"] == "eager" and "samples/s" in line}
    names = ["samples/s", "/ eager", "ms/step", "of peak", "ready, s", "first loss", "last loss", "GPU MiB"]
    rows = [f"| shape | variant | {' | '.join(names)} |", f"| --- | --- |{' ---: |' * len(names)}"]
    for line in lines:
        if "failed" in line:
            rows.append(f"| {line['shape']} | {line['variant']} | {line['failed']} |{' |' * (len(names) - 1)}")
            continue
        ratio = line["samples/s"] / base[line["shape"]] if line["shape"] in base else 0.0
        values = [f"{ratio:.2f}" if name == "/ eager" else str(line[name]) for name in names]
        rows.append(f"| {line['shape']} | {line['variant']} | {' | '.join(values)} |")
    return "\n".join(rows)


def main(words: list[str] | None = None) -> int:
    """Run the parts in turn. Return 1 if a test, a check or the step of today's loop failed."""
    chosen = options(words)
    deadline = Deadline(chosen.minutes)
    found: dict[str, Any] = {"machine": machine(2, chosen.device)}
    text: list[str] = []

    def save(part: str, value: Any) -> None:
        found[part] = value
        (chosen.out / "gpu.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        (chosen.out / "gpu.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")

    for part in (name for name in PARTS if name in chosen.only):
        value, words_of = MEASURES[part](chosen, deadline.part(SECONDS[part]), partial(save, part))
        text.append(words_of)
        save(part, value)
        say(words_of)
    print(f"written to {chosen.out}")
    failed = any("failed" in line for line in found.get("variants", ()) if line["variant"] == "eager")
    failed |= "decoders" in found and report.is_failed(found["decoders"])
    return int(failed or found.get("tests", {}).get("status") not in (None, 0))


def _tests(chosen: argparse.Namespace, deadline: Deadline, save: Save) -> tuple[Any, str]:
    status, printed = run(["pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *TEST_FILES], deadline.left())
    return {"status": status, "end": printed}, f"Tests: {printed.strip().rpartition(chr(10))[2]}"


def _decoders(chosen: argparse.Namespace, deadline: Deadline, save: Save) -> tuple[Any, str]:
    peak = work.peak(supports_bf16(chosen.device), 2, chosen.device)
    steps = min(chosen.steps, 20)
    found = report.measure_decoders(chosen.device, steps, run, deadline.left, peak, save)
    return found, report.tables(found)


def _variants(chosen: argparse.Namespace, deadline: Deadline, save: Save) -> tuple[Any, str]:
    lines = measure_variants(chosen, deadline, save)
    return lines, table(lines)


def _training(chosen: argparse.Namespace, deadline: Deadline, save: Save) -> tuple[Any, str]:
    if deadline.left() < 45:
        return {"status": 124, "end": "no time left"}, "Training: no time left"
    own = [*TRAINING, "--device", "cuda"] if chosen.device == "cuda" else [*TRAINING[:5], "raypath"]
    few = ["--steps", "3", "--warmup", "1"] if chosen.device == "cpu" else []
    status, printed = run(["tests.bench.training", *own, *few], deadline.left())
    return {"status": status, "end": printed}, printed


def _generation(chosen: argparse.Namespace, deadline: Deadline, save: Save) -> tuple[Any, str]:
    """Measure the service with vLLM and vLLM's server, in turns. The aim is 0.95 of its tokens a second."""
    few = ["--short", "--clients", "4"] if chosen.device == "cpu" else ["--clients", "64", "--rounds", "2"]
    out = chosen.out / "generation"
    words = ["--only", "raypath", "vllm", "--precision", "vllm", "--out", str(out), *few]
    status, printed = run(["tests.bench.generate", *words], deadline.left())
    if status:
        return {"status": status, "end": printed}, f"Generation: {printed.strip().rpartition(chr(10))[2]}"
    found = json.loads((out / "generation.json").read_text(encoding="utf-8"))
    speeds = {name: _medians(found["rounds"][name]) for name in ("raypath", "vllm")}
    ratios = [round(ours / peer, 3) for ours, peer in zip(speeds["raypath"], speeds["vllm"], strict=True)]
    lines = [f"{cell}: {ratio} of vLLM's server" for cell, ratio in zip(found["cells"], ratios, strict=True)]
    return {"status": 0, "ratios": ratios, **found}, "Generation\n\n" + "\n".join(lines)


def _medians(rounds: list[list[dict[str, Any]]]) -> list[float]:
    """Return the tokens a second of each cell, the median of the rounds."""
    return [statistics.median(each["tokens_s"] for each in cell) for cell in zip(*rounds, strict=True)]


MEASURES = {
    "tests": _tests,
    "decoders": _decoders,
    "variants": _variants,
    "training": _training,
    "generation": _generation,
}


if __name__ == "__main__":
    sys.exit(main())
