"""What training in two processes costs: `python -m tests.bench.workers [ROUNDS]`.

Steps of one process on one core, and of two processes on a core each that exchange gradients by gloo, with twice the
tokens a step: the same work a core. What the second takes longer is the exchange, the wait for the slower of the two,
and the memory bandwidth that they share. MiniLM-L6 on reviews, all weights trained.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.clock import Enough
from tests.bench.reviews import Spec, prepare
from tests.bench.training import turns

STEPS, WARMUP, TOKENS = 20, 5, 1024
CASES = {"1 process": 1, "2 processes": 2}


def measure(spec: Spec, ranks: int) -> float:
    """Median seconds of a step."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    with tempfile.TemporaryDirectory(dir=spec.folder) as place:
        processes = [context.Process(target=train, args=(spec, rank, ranks, place, told)) for rank in range(ranks)]
        for process in processes:
            process.start()
        found = told.get(timeout=300)
        for process in processes:
            process.join(60)
            process.kill()
    return float(statistics.median(found))


def train(spec: Spec, rank: int, ranks: int, place: str, told: Any) -> None:
    """One of the processes; the first one tells the seconds of its steps."""
    import torch.distributed as dist

    from components.training.job import Job
    from components.training.loop import Training
    from tests.bench import ours

    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=ranks)
    params = ours.params_of(spec, shipped=False).override({"batch_tokens": TOKENS * ranks, "memory": "full"})
    seen: list[float] = [time.perf_counter()]

    class Timed(Training):
        def _step(self, *given: Any) -> bool:
            due = super()._step(*given)
            seen.append(time.perf_counter())
            if len(seen) > STEPS + WARMUP:
                raise Enough
            return due

    rows = ours.rows_of(spec, "train")
    job = Job(ours.task_of(spec, params), _folder(params.base), rows, ours.rows_of(spec, "valid"), params, 0, 1)
    try:
        Timed(job).run()
    except Enough:
        if rank == 0:
            told.put([b - a for a, b in zip(seen[WARMUP:-1], seen[WARMUP + 1 :], strict=True)])
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


def _folder(base: str) -> Path:
    from components.tasks.bases import base_folder

    return base_folder(base)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory(prefix="raypath-workers-") as place:
        spec = prepare(Path(place), 2000, 1)
        for number, name in turns(CASES, rounds):
            found[name].append(measure(spec, CASES[name]))
            print(f"round {number + 1}: {name} {found[name][-1] * 1e3:.0f} ms a step", flush=True)
    one, two = (statistics.median(values) * 1e3 for values in found.values())
    print(f"{TOKENS} tokens a process: {one:.0f} ms alone, {two:.0f} ms of two, {two - one:.0f} ms more a step")


if __name__ == "__main__":
    main()
