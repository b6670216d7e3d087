"""One measurement in a process of its own: `python -m tests.bench.child JOB NAME SPEC.json OUT.json`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.clock import Clock, Enough, Stamps, device_memory, peak_memory
from tests.bench.reviews import TEXTS, Spec


def speed(name: str, spec: Spec) -> dict[str, Any]:
    """A contender's steady state: what it did in how many seconds, and the operations that this takes."""
    from tests.bench import peers, work

    clock = Clock(spec.warmup, spec.steps, spec.device)
    with contextlib.suppress(Enough):
        peers.CONTENDERS[name](spec, clock)
    found, memory, on_device = clock.figures(), peak_memory(), device_memory()
    counted = work.work_of(peers.model_of(name, spec))
    operations = counted.total(found["rows"], found["tokens"], found["pairs"])
    more = {"device_memory": on_device, "operations": operations, "bf16": peers.in_bf16(name, spec)}
    return {**found, "memory": memory, **more}


def quality(name: str, spec: Spec) -> dict[str, Any]:
    """A contender trained to the end, and its figures on the test part."""
    from tests.bench import ours, peers

    clock, started = Clock(0, 0), time.perf_counter()
    model = peers.CONTENDERS[name](spec, clock)
    took, memory = time.perf_counter() - started, peak_memory()
    return {"rows": clock.rows, "steps": clock.seen, "seconds": took, "memory": memory, **ours.judge(spec, model)}


def peak(name: str, spec: Spec) -> dict[str, Any]:
    """The machine's rate of matrix products in fp32, and in bf16 where it has it."""
    from raypath.components.models.bf16 import supports_bf16
    from tests.bench import work

    kinds = {"fp32": False, **({"bf16": True} if supports_bf16(spec.device) else {})}
    return {kind: work.peak(bf16, spec.threads, spec.device) for kind, bf16 in kinds.items()}


def start(name: str, spec: Spec) -> dict[str, Any]:
    """Seconds from the call, imports and all, to the end of the first optimizer step, and when that was."""
    took = {"plain": _start_plain, "raypath": _start_raypath}[name](spec)
    return {"seconds": took, "ended": time.time(), "memory": peak_memory()}


def _start_plain(spec: Spec) -> float:
    """What a script has to do at least."""
    started = time.perf_counter()
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from raypath.components.core.uris import local_path

    folder = local_path(spec.base)
    few = json.loads((Path(spec.folder) / TEXTS).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(spec.train.labels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.lr)
    batch = tokenizer(few["texts"], truncation=True, max_length=128, padding=True, return_tensors="pt")
    model.train()
    model(**batch, labels=torch.tensor(few["targets"])).loss.backward()
    optimizer.step()
    return time.perf_counter() - started


def _start_raypath(spec: Spec) -> float:
    """The component's call; only what a workflow imports is imported before it."""
    from raypath.components.finetune import ResolvedParams, finetune

    class First(Clock):
        def step(self, lengths: Any) -> None:
            raise Enough

    ctx = replace(spec.context("start"), track=Stamps(First(0, 1), [None]))
    params = ResolvedParams(base=spec.base, frozen_layers=-1)
    started = time.perf_counter()
    with contextlib.suppress(Enough):
        finetune.fn(ctx, spec.train, spec.valid, None, params)
        raise RuntimeError("finetune ended without noting a step")
    return time.perf_counter() - started


JOBS: dict[str, Callable[[str, Spec], dict[str, Any]]] = {
    "speed": speed,
    "quality": quality,
    "peak": peak,
    "start": start,
}


if __name__ == "__main__":
    job, name, given, out = sys.argv[1:]
    answer = JOBS[job](name, Spec.model_validate_json(Path(given).read_text(encoding="utf-8")))
    Path(out).write_text(json.dumps(answer), encoding="utf-8")
