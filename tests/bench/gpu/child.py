"""One variant in a process of its own: `python -m tests.bench.gpu.child SHAPE VARIANT DEVICE WARMUP STEPS OUT`."""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from raypath.components.models.encoders.fast_bert import fuse_qkv, read_first_token_only
from raypath.components.models.process import configure_process
from tests.bench.gpu.shapes import build, make_rows, shapes_of
from tests.bench.gpu.variants import VARIANTS, Stepper
from tests.bench.work import work_of

ROWS = 20_000


def measure(shape: str, variant: str, device: str, warmup: int, steps: int) -> dict[str, Any]:
    """Train `warmup` steps, then time `steps`; batches are made beforehand. Seconds of compiling are apart."""
    configure_process(seed=0)
    size, chosen = shapes_of(device)[shape], VARIANTS[variant]
    rows = make_rows(size, ROWS if device == "cuda" else 500)
    made = list(itertools.islice(chosen.batches(size, rows), warmup + steps))
    stepper = Stepper(chosen, build(size), device)
    began = time.perf_counter()
    first = [float(stepper.step(batch)) for batch in made[:warmup]]  # waits for the device
    ready = time.perf_counter()
    losses = [stepper.step(batch).clone() for batch in made[warmup:]]
    last = float(torch.stack(losses).mean())  # waits for the device
    seconds = time.perf_counter() - ready
    timed = made[warmup:]
    found: dict[str, Any] = {name: sum(getattr(batch, name) for batch in timed) for name in ("rows", "tokens", "pairs")}
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {
        **found,
        "seconds": seconds,
        "steps": steps,
        "ready": ready - began,
        "first_loss": first[0],
        "last_loss": last,
        "memory": memory,
        "operations": operations(size, found),
    }


def operations(size: Any, found: dict[str, Any]) -> float:
    """Count the operations that the rows need, padding not counted; the top layer computes first tokens alone."""
    model = build(size)
    read_first_token_only(model)
    fuse_qkv(model)
    return work_of(model).total(found["rows"], found["tokens"], found["pairs"])


if __name__ == "__main__":
    shape, variant, device, warmup, steps, out = sys.argv[1:]
    Path(out).write_text(json.dumps(measure(shape, variant, device, int(warmup), int(steps))), encoding="utf-8")
