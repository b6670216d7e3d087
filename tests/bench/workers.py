"""What training in several processes costs and brings: `python -m tests.bench.workers [--rounds N]`.

One process on one core, two on a core each, four and so on up to the machine's cores, which exchange gradients by gloo;
MiniLM-L6 on reviews, all weights trained. First every process has the same work (1,024 tokens a step): what a step
takes longer is the exchange, the wait for the slowest, and the memory that they share. Then all together have the same
work (strong scaling, 4,096 tokens a step): how much faster a step is.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.clock import Enough
from tests.bench.reviews import Spec, prepare
from tests.bench.training import turns

STEPS, WARMUP = 20, 5
EACH, TOGETHER = 1_024, 4_096
"""Tokens in a step of every process, and of all together."""


def measure(spec: Spec, ranks: int) -> float:
    """Median seconds of a step of `spec.tokens` tokens, all processes together."""
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

    from raypath.components.models.base_models import base_folder
    from raypath.components.training.job import TrainingCallback, TrainingJob, TrainingState
    from raypath.components.training.loop.trainer import start_training
    from tests.bench import ours

    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=ranks)
    params = ours.params_of(spec, shipped=False).override({"memory": "full"})
    seen: list[float] = [time.perf_counter()]

    class Timed(TrainingCallback):
        def checkpoint_due(self, training: TrainingState) -> bool:
            seen.append(time.perf_counter())
            if len(seen) > STEPS + WARMUP:
                raise Enough
            return False

    job = TrainingJob(
        task=ours.task_of(spec, params),
        folder=base_folder(params.base),
        train=ours.rows_of(spec, "train"),
        valid=ours.rows_of(spec, "valid"),
        params=params,
        seed=0,
        threads=1,
        callback=Timed(),
    )
    try:
        start_training(job).run()
    except Enough:
        if rank == 0:
            told.put([b - a for a, b in zip(seen[WARMUP:-1], seen[WARMUP + 1 :], strict=True)])
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


def scaled(spec: Spec, name: str, tokens: dict[int, int], rounds: int) -> None:
    """Print a line for each number of processes. tokens: of a step, by that number."""
    found: dict[int, list[float]] = {ranks: [] for ranks in tokens}
    for _, case in turns(map(str, tokens), rounds):
        given = spec.model_copy(update={"tokens": tokens[int(case)]})
        found[int(case)].append(measure(given, int(case)))
    ms = {ranks: 1e3 * statistics.median(values) for ranks, values in found.items()}
    for ranks, each in ms.items():
        rate = tokens[ranks] * ms[1] / tokens[1] / each
        told = f"{rate:.2f} times the tokens a second of one, {rate / ranks:.0%} of what {ranks} could be"
        print(f"{name}: {ranks} processes, {tokens[ranks]} tokens a step, {each:.0f} ms: {told}", flush=True)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    counts = [1 << power for power in range(cores.bit_length())]
    with tempfile.TemporaryDirectory(prefix="raypath-workers-") as place:
        spec = prepare(Path(place), 2000, 1).model_copy(update={"epochs": 20})
        scaled(spec, "the same work each", {ranks: EACH * ranks for ranks in counts}, chosen.rounds)
        scaled(spec, "the same work together", dict.fromkeys(counts, TOGETHER), chosen.rounds)


if __name__ == "__main__":
    main()
